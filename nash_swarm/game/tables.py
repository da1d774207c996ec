"""The game's two tables in the form that the kernels read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.game.bitgame import BitGame

PRECISION = 2.0**-24
"""Damage is kept in float32, so no total of it is known to less than this share of itself."""


class Tables(NamedTuple):
    """Read-only, C-contiguous views; a copy is made only of what is not contiguous.

    Attributes:
        damage: float32 (agents, strategies), nats per token; float64 and of any sign where it is seen by agents that
            are coupled.
        memory: int64 (agents, strategies), bits; (1, strategies) where all agents share one row.
    """

    damage: npt.NDArray[np.floating[Any]]
    memory: npt.NDArray[np.int64]

    @classmethod
    def of(cls, game: BitGame) -> Tables:
        """The tables of `game`."""
        shared = game.memory.strides[0] == 0
        return cls(readonly(game.damage), readonly(game.memory[:1] if shared else game.memory))

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.damage)

    @property
    def shared(self) -> bool:
        """Whether every agent has the same memory row."""
        return len(self.memory) == 1

    def take(self, agents: npt.NDArray[np.int64]) -> Tables:
        """The tables of some agents only, as copies."""
        memory = self.memory if self.shared else readonly(self.memory[agents])
        return Tables(readonly(self.damage[agents]), memory)


def readonly(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A C-contiguous view that cannot be written: one flavour of array, so that each kernel is compiled once."""
    view = np.ascontiguousarray(table).view()
    view.flags.writeable = False
    return view
