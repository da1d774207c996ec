"""Random numbers inside kernels that are the same whatever thread asks and in whatever order."""

from __future__ import annotations

import numpy as np

from nash_swarm.compiling import njit


@njit(nogil=True, cache=True)
def chance(seed, counter):  # type: ignore[no-untyped-def]
    """A number in [0, 1) that depends on seed and counter alone (splitmix64; Steele, Lea & Flood 2014)."""
    z = np.uint64(seed) + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
