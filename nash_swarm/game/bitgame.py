"""The problem every solver gets: the damage and the memory of each agent with each bit-width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.budget import Budget
from nash_swarm.game.coupling.vectors import Coupling
from nash_swarm.game.profiles import pick
from nash_swarm.game.tensors import Tensor


@dataclass(frozen=True, eq=False)
class Calibration:
    """The text the game was measured on, kept so that rounding uses the same one.

    Attributes:
        tokens: token ids, int32, shape (windows, length).
        source: where the text came from, for people.
    """

    tokens: npt.NDArray[np.int32]
    source: str

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or not self.tokens.shape[0] or self.tokens.shape[1] < 2:
            raise DataError(f"calibration tokens must have the shape (windows, length >= 2), not {self.tokens.shape}")
        if self.tokens.dtype != np.int32 or self.tokens.min() < 0:
            raise DataError("calibration tokens must be non-negative int32")


@dataclass(frozen=True, eq=False)
class BitGame:
    """Agents bargaining for bits.

    Attributes:
        strategies: bit-widths, ascending; column k of the tables is strategy k.
        damage: float32 (agents, strategies), estimated rise of the loss in nats per token if only that agent plays
            that strategy (for the data-free estimators: relative error, same shape, no unit).
        memory: int64 (agents, strategies), exact bits on disk; non-decreasing along a row. May be a broadcast view.
        fixed_bits: bits on disk that no strategy changes (headers, norms, biases, permutations, config).
        parameters: unique parameters in scope, the denominator of "bits per parameter".
        tensors: layout of the model's matrices over the agents, in agent order; empty for synthetic games.
        permutations: activation order of the columns of each ordered tensor, by tensor name.
        calibration: the text that was measured on, if any.
        provenance: how the game came to be (model, estimator, granularity, scope, seed), JSON values only.
        coupling: how the agents' damage combines; without it the damage of a profile is the sum of the agents' own.
    """

    strategies: tuple[int, ...]
    damage: npt.NDArray[np.float32]
    memory: npt.NDArray[np.int64]
    fixed_bits: int = 0
    parameters: int = 0
    tensors: tuple[Tensor, ...] = ()
    permutations: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    calibration: Calibration | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    coupling: Coupling | None = None

    def __post_init__(self) -> None:
        shape = (len(self.damage), len(self.strategies))
        if not self.strategies or list(self.strategies) != sorted(set(self.strategies)):
            raise DataError(f"strategies must be distinct ascending bit-widths, not {self.strategies}")
        if self.damage.shape != shape or self.memory.shape != shape or not shape[0]:
            raise DataError(
                f"damage {self.damage.shape} and memory {self.memory.shape} must both be (agents, {shape[1]})"
            )
        if self.damage.dtype != np.float32 or self.memory.dtype != np.int64:
            raise DataError(f"damage must be float32 and memory int64, not {self.damage.dtype} and {self.memory.dtype}")
        # sums and extrema propagate NaN and infinity without a temporary as large as the table
        if not (np.isfinite(self.damage.min()) and np.isfinite(self.damage.max())):
            raise DataError("the damage table holds NaN or infinite values: the weights or activations overflowed")
        if self.damage.min() < 0:
            raise DataError("the damage table holds negative values; an estimator must return damage >= 0")
        ranges = self.memory if self.memory.strides[0] else self.memory[:1]
        if ranges.min() <= 0 or (np.diff(ranges, axis=1) < 0).any():
            raise DataError("memory must be positive and must not fall with the bit-width")
        if self.fixed_bits < 0 or self.parameters < 0:
            raise DataError("fixed_bits and parameters must not be negative")
        if self.coupling is not None and (found := self.coupling.vectors.shape[:2]) != shape:
            raise DataError(f"the coupling is of {found} agents and strategies, not {shape}")
        if self.tensors:
            check_tensors(self.tensors, self.permutations, self.strategies, self.agents)

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.damage)

    def smallest_bits(self) -> int:
        """Bits on disk when every agent plays its cheapest strategy."""
        return self.fixed_bits + int(self.memory[:, 0].sum())

    def largest_bits(self) -> int:
        """Bits on disk when every agent plays its most expensive strategy."""
        return self.fixed_bits + int(self.memory[:, -1].sum())

    def capacity(self, budget: Budget) -> int:
        """Bits the agents may share under `budget`: the budget less the fixed cost.

        Raises:
            BudgetError: not even the narrowest width of every agent fits; names the smallest feasible budget.
        """
        budget.require(self.smallest_bits(), self.parameters, self.strategies)
        return budget.total_bits - self.fixed_bits

    def used_bits(self, choices: npt.NDArray[np.uint8]) -> int:
        """Bits on disk of a profile of strategy indices, fixed cost included."""
        return self.fixed_bits + int(pick(self.memory, choices).sum())

    def total_damage(self, choices: npt.NDArray[np.uint8]) -> float:
        """Damage of a profile of strategy indices, in nats per token: the agents' own and what their pairs add."""
        own = float(pick(self.damage, choices).sum(dtype=np.float64))
        return own if self.coupling is None else own + self.coupling.added(choices)


def check_tensors(
    tensors: Sequence[Tensor],
    permutations: Mapping[str, npt.NDArray[np.int64]],
    strategies: tuple[int, ...],
    agents: int,
) -> None:
    """Hold the layouts of a model's matrices against the agents and activation orders they come with.

    Raises:
        DataError: they do not belong together.
    """
    at = 0
    for tensor in tensors:
        order = permutations.get(tensor.name)
        if tensor.start != at:
            raise DataError(f"tensor {tensor.name!r} starts at agent {tensor.start}, expected {at}")
        if tensor.ordered != (order is not None):
            raise DataError(f"tensor {tensor.name!r} and its activation order do not belong together")
        # the length first: the layout may lie about its columns
        if order is not None and (
            len(order) != tensor.columns or not np.array_equal(np.sort(order), np.arange(tensor.columns))
        ):
            raise DataError(f"the activation order of {tensor.name!r} is no permutation of its columns")
        tensor.check(strategies)
        at += tensor.agents
    if at != agents:
        raise DataError(f"the tensors hold {at} agents, not {agents}")
