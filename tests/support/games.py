"""Games for the solvers' tests."""

from __future__ import annotations

import numpy as np

from nash_swarm.game import BitGame


def make_game(agents: int, seed: int = 0, *, shared: bool = False) -> BitGame:
    """A game of the usual kind: damage falls roughly fourfold a bit and differs by orders of magnitude among agents."""
    rng = np.random.default_rng(seed)
    strategies = (2, 3, 4, 5, 6, 8)
    widths = np.array(strategies)
    scale = rng.lognormal(0, 2, (agents, 1))
    damage = np.sort(scale * 4.0**-widths * rng.uniform(0.7, 1.3, (agents, len(widths))), axis=1)[:, ::-1]
    memory = (
        np.broadcast_to(widths, damage.shape) if shared else widths * rng.choice([256, 512, 1024], (agents, 1)) + 64
    )
    return BitGame(strategies, np.ascontiguousarray(damage, np.float32), memory, 1000, agents * 512)
