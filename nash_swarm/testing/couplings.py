"""Coupled games, whatever couples them, the slow and obvious way: every pair written down."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.game import BitGame, Coupling, Stencil


class Pairs(NamedTuple):
    """Agents i != j that play s and t add `weights[i, j] * vectors[i, s] @ vectors[j, t]` to the total cost.

    Attributes:
        weights: float64 (agents, agents), symmetric; the diagonal is of no pair.
        vectors: float64 (agents, strategies, rank).
    """

    weights: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float64]

    @classmethod
    def of(cls, game: BitGame) -> Pairs:
        """The pairs of `game`; without a coupling all weights are 0."""
        coupling = game.coupling
        if isinstance(coupling, Coupling):
            graph = coupling.graph[coupling.community][:, coupling.community]
            return cls(graph, coupling.vectors.astype(np.float64))
        if isinstance(coupling, Stencil):
            signs = 1.0 - 2.0 * (coupling.signs[:, None] >> np.arange(len(game.strategies)) & 1)
            beside = along_rows(coupling)
            weights = 2 * (np.eye(game.agents) + np.diag(beside, 1) + np.diag(beside, -1))
            errors = signs * np.sqrt(game.damage.astype(np.float64))
            return cls(weights, errors[:, :, None].astype(np.float64))
        assert coupling is None, f"no oracle for {type(coupling).__name__}"
        return cls(np.zeros((game.agents, game.agents)), np.zeros((*game.damage.shape, 0)))

    @property
    def others(self) -> npt.NDArray[np.float64]:
        """The weights without the diagonal."""
        return self.weights * (1 - np.eye(len(self.weights)))


def along_rows(stencil: Stencil) -> npt.NDArray[np.float64]:
    """Correlation of every agent but the last with the next one in agent order."""
    return np.concatenate([np.tile(grid.correlation, grid.rows) for grid in stencil.grids()]).astype(np.float64)[:-1]


def scaled(game: BitGame, factor: float) -> BitGame:
    """The same game with damage in another unit."""
    coupling = game.coupling
    if isinstance(coupling, Coupling):
        coupling = replace(coupling, vectors=coupling.vectors * np.float32(math.sqrt(factor)))
    return replace(game, damage=game.damage * np.float32(factor), coupling=coupling)


def shuffled(game: BitGame, rng: np.random.Generator) -> BitGame:
    """The same game with its agents in another order: rows in another order where agents are coupled along rows."""
    coupling = game.coupling
    order = rng.permutation(game.agents)
    if isinstance(coupling, Stencil):
        grids = [
            grid.start + np.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns)
            for grid in coupling.grids()
        ]
        order = np.concatenate([agents[rng.permutation(len(agents))].ravel() for agents in grids])
        coupling = replace(coupling, signs=coupling.signs[order])
    elif isinstance(coupling, Coupling):
        coupling = Coupling(coupling.vectors[order], coupling.community[order], coupling.graph)
    return replace(game, damage=game.damage[order], memory=game.memory[order], coupling=coupling)
