"""Games whose damage table is never resident: it is read, or made again, a chunk of agents at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.demand import Point, demand, regret, totals
from nash_swarm.game.exchange import Offers, best_of, span_offers
from nash_swarm.game.market import dual_bound
from nash_swarm.game.profiles import pick
from nash_swarm.game.tables import Tables, readonly
from nash_swarm.sharing import over_spans

T = TypeVar("T")

CHUNK = 1 << 15
"""Agents read at a time: their damage fits the processor's cache. Results do not depend on it."""


class Source(Protocol):
    """Where damage comes from; the same chunk must always be the same. Read by several threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Agents and strategies."""

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Damage of agents `start` to `stop`, float32 (stop - start, strategies), nats per token."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table that is in memory, or mapped into it.

    Attributes:
        damage: float32 (agents, strategies).
    """

    damage: npt.NDArray[np.float32]

    @classmethod
    def open(cls, path: str | Path) -> Table:
        """A table in a `.npy` file, mapped.

        Raises:
            DataError: the file is no such table.
        """
        try:
            return cls(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no table of damage in NumPy's format: {error}") from error

    def __post_init__(self) -> None:
        if self.damage.ndim != 2 or self.damage.dtype != np.float32:
            raise DataError(f"damage must be float32 (agents, strategies), not {self.damage.dtype} {self.damage.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """Agents and strategies."""
        agents, strategies = self.damage.shape
        return agents, strategies

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """See `Source.read`."""
        return np.asarray(self.damage[start:stop])


@dataclass(frozen=True, eq=False)
class StreamedGame:
    """Agents bargaining for bits, whose damage is read in chunks.

    Attributes:
        strategies: bit-widths, ascending.
        source: where damage comes from.
        memory: int64, exact bits on disk with each strategy, ascending: (1, strategies), the same for every agent, or
            (agents, strategies), which may be mapped from a file.
        fixed_bits: bits on disk that no strategy changes.
        parameters: unique parameters in scope, the denominator of "bits per parameter".
    """

    strategies: tuple[int, ...]
    source: Source
    memory: npt.NDArray[np.int64]
    fixed_bits: int = 0
    parameters: int = 0

    def __post_init__(self) -> None:
        if not self.strategies or list(self.strategies) != sorted(set(self.strategies)):
            raise DataError(f"strategies must be distinct ascending bit-widths, not {self.strategies}")
        count = len(self.strategies)
        if self.source.shape[0] < 1 or self.source.shape[1] != count:
            raise DataError(f"the source has the shape {self.source.shape}, not (agents, {count})")
        if self.memory.shape not in ((1, count), (self.agents, count)) or self.memory.dtype != np.int64:
            found = f"{self.memory.dtype} {self.memory.shape}"
            raise DataError(f"memory must be int64 (1, {count}) or ({self.agents}, {count}), not {found}")
        if self.memory.min() <= 0 or any((self.memory[:, s] > self.memory[:, s + 1]).any() for s in range(count - 1)):
            raise DataError("memory must be positive and must not fall with the bit-width")
        if self.fixed_bits < 0 or self.parameters < 0:
            raise DataError("fixed_bits and parameters must not be negative")

    @classmethod
    def of(cls, game: BitGame) -> StreamedGame:
        """A game that is in memory, as one that need not be; its coupling is left out."""
        tables = Tables.of(game)
        return cls(game.strategies, Table(tables.damage), tables.memory, game.fixed_bits, game.parameters)

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.source.shape[0]

    def smallest_bits(self) -> int:
        """Bits on disk when every agent plays its cheapest strategy."""
        return self.fixed_bits + self._bits(0)

    def largest_bits(self) -> int:
        """Bits on disk when every agent plays its most expensive strategy."""
        return self.fixed_bits + self._bits(-1)

    def _bits(self, strategy: int) -> int:
        return int(self.memory[:, strategy].sum()) * (self.agents // len(self.memory))

    def capacity(self, budget: Budget) -> int:
        """Bits the agents may share under `budget`.

        Raises:
            BudgetError: not even the narrowest width of every agent fits; names the smallest feasible budget.
        """
        budget.require(self.smallest_bits(), self.parameters, self.strategies)
        return budget.total_bits - self.fixed_bits

    def over_chunks(self, task: Callable[[Tables, int, int], T]) -> list[T]:
        """`task(tables, start, stop)` for consecutive chunks of agents, shared by threads; results in order."""
        shared = len(self.memory) == 1

        def part(start: int, stop: int) -> T:
            damage = self.source.read(start, stop)
            if damage.dtype != np.float32 or damage.shape != (stop - start, len(self.strategies)):
                raise DataError(f"the source returned {damage.dtype} {damage.shape} for {stop - start} agents")
            memory = self.memory if shared else self.memory[start:stop]
            return task(Tables(readonly(damage), readonly(memory)), start, stop)

        return over_spans(part, self.agents, CHUNK)


def certify_stream(game: StreamedGame, budget: Budget, choices: npt.NDArray[np.uint8], price: float) -> Certificate:
    """The certificate of a profile of choices, from the game alone, in one pass over it.

    The lower bound is the dual's value at `price`, whatever the price; it is tight at the clearing price.

    Args:
        game: the problem.
        budget: the limit on everything written to disk.
        choices: uint8 (agents,), strategy indices; may be mapped from a file.
        price: damage per bit at which regret is stated.

    Raises:
        DataError: the choices are none of this game or exceed the budget, or the price is no price.
    """
    if choices.dtype != np.uint8 or choices.shape != (game.agents,):
        raise DataError(f"choices must be uint8 ({game.agents},) for this game, not {choices.dtype} {choices.shape}")
    if not (math.isfinite(price) and price >= 0):
        raise DataError(f"a price must be finite and not negative, not {price}")
    capacity = budget.total_bits - game.fixed_bits
    slack = capacity - sum(over_spans(lambda start, stop: _bits(game, choices, start, stop), game.agents))
    if slack < 0:
        raise DataError(f"the choices take {budget.total_bits - slack} bits of {budget.total_bits} allowed")

    def look(tables: Tables, start: int, stop: int) -> tuple[Point, Point, float, Offers]:
        own = np.asarray(choices[start:stop])
        wanted = demand(tables, price, np.empty_like(own))
        offers = span_offers(tables, own, slack, 0, stop - start).shifted(start)
        return totals(tables, own), wanted, regret(tables, own, price), offers

    chosen, wanted, regrets, offers = zip(*game.over_chunks(look), strict=True)
    best = Point(price, sum(point.memory for point in wanted), math.fsum(point.damage for point in wanted))
    return Certificate(
        budget_bits=budget.total_bits,
        used_bits=budget.total_bits - slack,
        price=price,
        unilateral_regret=max(regrets),
        exchange_regret=best_of(offers, slack).gain,
        predicted_damage=math.fsum(point.damage for point in chosen),
        lower_bound=dual_bound(best, price, capacity, game.smallest_bits() - game.fixed_bits),
    )


def _bits(game: StreamedGame, choices: npt.NDArray[np.uint8], start: int, stop: int) -> int:
    own = np.asarray(choices[start:stop])
    if (largest := int(own.max())) >= len(game.strategies):
        raise DataError(f"choice {largest} is no index into the {len(game.strategies)} strategies")
    if len(game.memory) == 1:
        return int(np.bincount(own, minlength=len(game.strategies)) @ game.memory[0])
    return int(pick(np.asarray(game.memory[start:stop]), own).sum())
