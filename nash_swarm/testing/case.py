"""One game of the contract suite, and how it complains."""

from __future__ import annotations

from typing import NamedTuple

from nash_swarm.game import BitGame, Budget


class Case(NamedTuple):
    """A game to be solved.

    Attributes:
        game: the problem.
        budget: a feasible budget for it.
        seed: of the solver.
        label: names the case in every complaint.
    """

    game: BitGame
    budget: Budget
    seed: int
    label: str

    def require(self, holds: bool, message: str) -> None:
        """Complain with `message` if something that must hold does not.

        Raises:
            AssertionError: it does not hold.
        """
        if not holds:
            raise AssertionError(f"{self.label}: {message}")
