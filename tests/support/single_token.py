"""The arithmetic of `kernels.single_token` in plain NumPy: the same float32 operations in the same order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES
from nash_swarm.quantizers.runtime.cpu.simd import functions

Floats = npt.NDArray[np.float32]
f = np.float32


def by_lanes(x: Floats) -> Floats:
    """Sums in sixteen lanes, then across: (..., n) to (...)."""
    parts = np.zeros((*x.shape[:-1], LANES), f)
    for k in range(0, x.shape[-1], LANES):
        parts += x[..., k : k + LANES]
    while parts.shape[-1] > 1:
        half = parts.shape[-1] // 2
        parts = parts[..., :half] + parts[..., half:]
    return parts[..., 0]


def exponentials(x: Floats) -> Floats:
    tiny = x < f(functions.LOWEST)
    huge = x > f(functions.HIGHEST)
    x = np.where(tiny, f(functions.LOWEST), np.where(huge, f(functions.HIGHEST), x))
    shifted = x * f(functions.LOG2_E) + f(functions.SHIFT)
    whole = shifted - f(functions.SHIFT)
    rest = (x - whole * f(functions.LN2_HIGH)) - whole * f(functions.LN2_LOW)
    power = np.full_like(x, functions.POLYNOMIAL[0])
    for coefficient in functions.POLYNOMIAL[1:]:
        power = power * rest + f(coefficient)
    result = (power * (rest * rest) + rest) + f(1)
    scale = (shifted.view(np.int32) - np.int32(functions.SHIFT_BITS - 127) << 23).view(f)
    return np.where(tiny, f(0), np.where(huge, f(np.inf), result * scale))


def norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    mean = by_lanes(x * x) / f(x.shape[-1])
    factor = f(1) / np.sqrt(mean + f(epsilon))
    return weight * (x * factor[..., None])


def gate(values: Floats, factors: Floats) -> Floats:
    return values / (f(1) + exponentials(values * f(-1))) * factors


def rotate(x: Floats, cosines: Floats, sines: Floats) -> Floats:
    half = x.shape[-1] // 2
    low, high = x[:, :half], x[:, half:]
    return np.concatenate(
        (low * cosines[:half] - high * sines[:half], high * cosines[half:] + low * sines[half:]), axis=1
    )


def attend(queries: Floats, keys: Floats, values: Floats, scale: float) -> Floats:
    """queries (heads, group, size), keys and values (heads, tokens, size)."""
    scores = by_lanes(queries[:, :, None] * keys[:, None]) * f(scale)
    tokens = scores.shape[-1]
    shares = exponentials(scores - scores.max(axis=-1, keepdims=True))
    padded = np.pad(shares, ((0, 0), (0, 0), (0, -tokens % LANES)))
    mixed = np.zeros_like(queries)
    for token in range(tokens):
        mixed += shares[:, :, token, None] * values[:, None, token]
    return mixed * (f(1) / by_lanes(padded))[..., None]
