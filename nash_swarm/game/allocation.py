"""The result of every solver: which agent plays which width, and what that proves about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.bitgame import BitGame, Calibration, check_tensors
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.tensors import Tensor


@dataclass(frozen=True, eq=False)
class Allocation:
    """One strategy for every agent, with everything that packing needs.

    Attributes:
        strategies: bit-widths, ascending.
        choices: uint8 (agents,), index into `strategies`.
        budget: what was asked for.
        certificate: computed from the game, whatever the solver.
        solver: name of the solver.
        hyperparameters: its settings, JSON values.
        trace: one record per iteration (price, memory, damage, regret, as far as the solver has them).
        tensors, permutations, calibration, provenance: taken over from the game.
    """

    strategies: tuple[int, ...]
    choices: npt.NDArray[np.uint8]
    budget: Budget
    certificate: Certificate
    solver: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[Mapping[str, float], ...] = ()
    tensors: tuple[Tensor, ...] = ()
    permutations: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    calibration: Calibration | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.choices.ndim != 1 or self.choices.dtype != np.uint8 or not len(self.choices):
            raise DataError(f"choices must be uint8 (agents,), not {self.choices.dtype} {self.choices.shape}")
        if int(self.choices.max()) >= len(self.strategies):
            raise DataError(f"a choice is no index into the {len(self.strategies)} strategies")
        if list(self.strategies) != sorted(set(self.strategies)):
            raise DataError(f"strategies must be distinct ascending bit-widths, not {self.strategies}")
        if self.tensors:
            check_tensors(self.tensors, self.permutations, self.strategies, len(self.choices))

    @classmethod
    def of(
        cls,
        game: BitGame,
        budget: Budget,
        choices: npt.NDArray[np.uint8],
        certificate: Certificate,
        *,
        solver: str,
        hyperparameters: Mapping[str, Any],
        trace: tuple[Mapping[str, float], ...] = (),
    ) -> Allocation:
        """The allocation of `choices` for `game`."""
        return cls(
            game.strategies, choices, budget, certificate, solver, hyperparameters, trace,
            game.tensors, game.permutations, game.calibration, game.provenance,
        )  # fmt: skip

    def widths(self, tensor: Tensor) -> npt.NDArray[np.uint8]:
        """Bit-widths of a tensor's tiles, uint8 one for each unit of its format."""
        return tensor.expand(np.array(self.strategies, np.uint8)[self.choices[tensor.span]])

    def histogram(self) -> dict[int, int]:
        """How many agents play each width."""
        counts = np.bincount(self.choices, minlength=len(self.strategies))
        return dict(zip(self.strategies, counts.tolist(), strict=True))
