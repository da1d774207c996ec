"""What a solver is: hyperparameters and one method that plays the game."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from inspect import signature
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import BudgetError, TimeLimitWarning
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import certify
from nash_swarm.game.rules import Rules

Callback = Callable[[Mapping[str, float]], None]
"""Called once an iteration with the record that also goes into the allocation's trace."""

Progress = Callable[[float], None]
"""Called with the share of the play that is done, from 0 to 1 and never falling."""


@dataclass(frozen=True, eq=False)
class Play:
    """What a solver's `play` returns.

    Attributes:
        choices: uint8 (agents,), strategy indices within the capacity.
        price: damage per bit at which the solver ended; `None` where it has no price of its own (the certificate
            then uses the price of the dual bound).
        trace: one record per iteration.
        out_of_time: the solver's time limit ended the play.
    """

    choices: npt.NDArray[np.uint8]
    price: float | None = None
    trace: tuple[Mapping[str, float], ...] = ()
    out_of_time: bool = False


@dataclass(frozen=True)
class Solver(ABC):
    """Base of every solver. Subclasses are frozen dataclasses that hold hyperparameters and implement `play`.

    Attributes:
        name: what the registry and reports call it.
        summary: one line for lists of solvers.
        baseline: it is there to be compared with, and not held to beating any single strategy.
        separable: it chooses as if agents were not coupled. Its certificate is for the coupled game all the same.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    baseline: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    def solve(
        self,
        game: BitGame,
        budget: Budget,
        *,
        rng: np.random.Generator | None = None,
        callback: Callback | None = None,
        rules: Rules | None = None,
        progress: Progress | None = None,
    ) -> Allocation:
        """Allocate the budget and certify the result.

        Args:
            game: the problem; never changed.
            budget: the limit on everything written to disk.
            rng: source of randomness; `default_rng(0)` if not given.
            callback: called once an iteration with the record that goes into the trace.
            rules: what agents may not play or must play alike. The game is then played, and regret stated, over what
                the rules permit; they are kept in the allocation's provenance.
            progress: called with the share that is done, by solvers whose `play` takes it.

        Raises:
            BudgetError: the budget is too small for the game (under the rules); names the smallest feasible one.
            UsageError: the rules do not fit the game.

        Warns:
            TimeLimitWarning: the solver ran out of time; names the gap to the optimum that is certified.
        """
        if rules:
            return self._solve_under(rules, game, budget, rng, callback, progress)
        capacity = game.capacity(budget)
        watched = {} if progress is None or not self.tells_progress() else {"progress": progress}
        rng = rng or np.random.default_rng(0)
        play = self.play(game, capacity, rng=rng, callback=callback or _ignore, **watched)
        certificate = certify(game, budget, play.choices, play.price)
        if play.out_of_time:
            warnings.warn(
                f"{self.name}: the time limit of {getattr(self, 'time_limit', 0):g} s was reached; "
                f"the damage is proven to be within {100 * certificate.gap:.2g} % of the least possible",
                TimeLimitWarning,
                stacklevel=2,
            )
        return Allocation.of(
            game, budget, play.choices, certificate, solver=self.name, hyperparameters=asdict(self), trace=play.trace
        )

    def _solve_under(
        self,
        rules: Rules,
        game: BitGame,
        budget: Budget,
        rng: np.random.Generator | None,
        callback: Callback | None,
        progress: Progress | None,
    ) -> Allocation:
        reduced, expand = rules.apply(game)
        try:
            part = self.solve(reduced, budget, rng=rng, callback=callback, progress=progress)
        except BudgetError as error:
            raise BudgetError(f"{error} under the rules ({rules})") from None
        return replace(
            part,
            choices=expand(part.choices),
            tensors=game.tensors,
            permutations=game.permutations,
            calibration=game.calibration,
            provenance={**game.provenance, "rules": rules.to_json()},
        )

    @abstractmethod
    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """Choose a strategy for every agent so that their memory sums to at most `capacity` bits.

        `capacity` is never below the sum of the cheapest strategies: `solve` has refused such budgets. A solver that
        may take long and knows how far it is takes one more argument, `progress: Progress = ignore_progress`.
        """

    @classmethod
    def tells_progress(cls) -> bool:
        """Whether `play` takes `progress`."""
        return "progress" in signature(cls.play).parameters

    @classmethod
    def takes_time_limit(cls) -> bool:
        """Whether there is a hyperparameter `time_limit`, seconds that a play may take."""
        return any(field.name == "time_limit" for field in fields(cls))


def part_of(progress: Progress, start: float, stop: float) -> Progress:
    """The progress of a part of the play, from the share `start` of it to `stop`."""
    return lambda share: progress(start + (stop - start) * share)


def ignore_progress(share: float) -> None:
    """A `Progress` that does nothing."""


def _ignore(record: Mapping[str, float]) -> None:
    pass
