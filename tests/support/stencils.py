"""Games whose agents are coupled along rows, and the same with every edge stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nash_swarm.game import BitGame, Budget, Coupling, Stencil
from nash_swarm.testing import oracles
from nash_swarm.testing.couplings import Pairs
from support.games import make_game


def coupled_rows(rows: int, columns: int, seed: int = 0) -> BitGame:
    """One matrix with random signs and correlations."""
    rng = np.random.default_rng(seed)
    correlation = np.append(rng.uniform(-0.5, 0.5, columns - 1), 0).astype(np.float32)
    signs = rng.integers(0, 64, rows * columns).astype(np.uint8)
    stencil = Stencil(signs, ((rows, columns),), correlation)
    return replace(make_game(rows * columns, seed, shared=True), coupling=stencil)


def third(game: BitGame) -> Budget:
    """A third of the way from the smallest to the largest size."""
    return Budget((2 * game.smallest_bits() + game.largest_bits()) // 3, "a third of the way")


def as_coupling(game: BitGame) -> BitGame:
    """The same game with every agent a community of its own and the stencil as a dense graph."""
    pairs = Pairs.of(game)
    community = np.arange(game.agents, dtype=np.int32)
    return replace(game, coupling=Coupling(pairs.vectors.astype(np.float32), community, pairs.weights))


def every_profile(game: BitGame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All profiles of strategy indices, what each costs and the bits its agents take: small games only."""
    every, pairs, agents = oracles.profiles(game), Pairs.of(game), np.arange(game.agents)
    played = pairs.vectors[agents, every][:, :, 0]
    cost = np.square(played).sum(axis=1) + 0.5 * np.einsum("pi,ij,pj->p", played, pairs.others, played)
    return every, cost, game.memory[agents, every].sum(axis=1)
