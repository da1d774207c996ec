"""Coupled games, whatever couples them, the slow and obvious way: every pair written down."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.game import BitGame, Coupling


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
        if coupling is None:
            return cls(np.zeros((game.agents, game.agents)), np.zeros((*game.damage.shape, 0)))
        graph = coupling.graph[coupling.community][:, coupling.community]
        return cls(graph, coupling.vectors.astype(np.float64))

    @property
    def others(self) -> npt.NDArray[np.float64]:
        """The weights without the diagonal."""
        return self.weights * (1 - np.eye(len(self.weights)))


def scaled(game: BitGame, factor: float) -> BitGame:
    """The same game with damage in another unit."""
    coupling = game.coupling
    if coupling is not None:
        coupling = replace(coupling, vectors=coupling.vectors * np.float32(math.sqrt(factor)))
    return replace(game, damage=game.damage * np.float32(factor), coupling=coupling)


def shuffled(game: BitGame, rng: np.random.Generator) -> BitGame:
    """The same game with its agents in another order."""
    coupling = game.coupling
    order = rng.permutation(game.agents)
    if coupling is not None:
        coupling = Coupling(coupling.vectors[order], coupling.community[order], coupling.graph)
    return replace(game, damage=game.damage[order], memory=game.memory[order], coupling=coupling)
