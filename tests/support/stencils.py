"""Small games whose agents are coupled along rows, and the same with every edge stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nash_swarm.game import BitGame, Coupling
from nash_swarm.game.stencil import Stencil, StencilGame
from nash_swarm.testing import oracles
from nash_swarm.testing.games import sample_game


def sample_stencil_game(rng: np.random.Generator, *, most_agents: int) -> StencilGame:
    """One to three matrices of random shapes, up to 4 strategies, any signs and correlations up to 1/2."""
    while (game := sample_game(rng, most_agents=most_agents)).provenance["kind"] == "huge range":
        pass
    keep = np.sort(rng.choice(len(game.strategies), min(4, len(game.strategies)), replace=False))
    shapes, left = [], most_agents
    while left and len(shapes) < 3:
        columns = int(rng.integers(1, left + 1))
        rows = int(rng.integers(1, left // columns + 1))
        shapes.append((rows, columns))
        left -= rows * columns
    agents = sum(rows * columns for rows, columns in shapes)
    damage = game.damage[rng.integers(0, game.agents, agents)][:, keep]
    memory = np.broadcast_to(np.array(game.memory[0, keep]), damage.shape)
    correlation = [np.append(rng.choice([1, rng.random()]) * rng.uniform(-0.5, 0.5, c - 1), 0) for _, c in shapes]
    if rng.random() < 0.3:
        correlation = [np.append(rng.choice([-0.5, 0.5], c - 1), 0) for _, c in shapes]
    return StencilGame(
        BitGame(tuple(game.strategies[s] for s in keep), np.ascontiguousarray(damage), memory, game.fixed_bits),
        Stencil(
            rng.integers(0, 256, agents).astype(np.uint8), tuple(shapes), np.concatenate(correlation).astype(np.float32)
        ),
    )


def as_coupling(game: StencilGame) -> BitGame:
    """The same game with every agent a community of its own and the stencil as a dense graph."""
    agents, strategies = game.game.damage.shape
    signs = 1.0 - 2.0 * (game.stencil.signs[:, None] >> np.arange(strategies) & 1)
    vectors = (signs * np.sqrt(game.game.damage))[:, :, None].astype(np.float32)
    beside = along_rows(game.stencil)
    graph = 2 * (np.eye(agents) + np.diag(beside, 1) + np.diag(beside, -1))
    return replace(game.game, coupling=Coupling(vectors, np.arange(agents, dtype=np.int32), graph))


def every_profile(game: StencilGame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All profiles of strategy indices, what each costs and the bits its agents take: small games only."""
    every = oracles.profiles(game.game)
    agents, strategies = game.game.damage.shape
    signs = 1.0 - 2.0 * (game.stencil.signs[:, None] >> np.arange(strategies) & 1)
    errors = (signs * np.sqrt(game.game.damage.astype(np.float64)))[np.arange(agents), every]
    beside = along_rows(game.stencil)
    cost = np.square(errors).sum(axis=1) + 2 * (beside * errors[:, :-1] * errors[:, 1:]).sum(axis=1)
    return every, cost, game.game.memory[np.arange(agents), every].sum(axis=1)


def along_rows(stencil: Stencil) -> np.ndarray:
    """Correlation of every agent but the last with the next one in agent order, float64."""
    parts, at = [], 0
    for rows, columns in stencil.shapes:
        parts.append(np.tile(stencil.correlation[at : at + columns], rows))
        at += columns
    return np.concatenate(parts).astype(np.float64)[:-1]
