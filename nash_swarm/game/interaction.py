"""What every way of coupling agents has in common: the rest of the framework knows no more of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the kernels bring in Numba, which reading a game should not wait for
    from nash_swarm.game.bitgame import BitGame
    from nash_swarm.game.demand import Point
    from nash_swarm.game.tensors import Tensor

Choices = npt.NDArray[np.uint8]


class Bound(NamedTuple):
    """A lower bound on the total cost of every profile that fits, and the price (damage per bit) it belongs to."""

    bound: float
    price: float


class Trade(NamedTuple):
    """The best fall of the total cost by a change of one agent, or a giver and a taker; is it over all pairs?"""

    gain: float
    exact: bool


class View(Protocol):
    """A game as its certificate sees it, whatever couples its agents. Choices are uint8 (agents,)."""

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """Memory and damage of a profile, what the pairs add included."""

    def regret(self, choices: Choices, price: float) -> float:
        """The most any single agent would gain at `price` by changing its mind, in nats per token."""

    def bound(self, capacity: int, price: float | None) -> Bound:
        """A lower bound for profiles within `capacity` bits; `price` is a hint at where it is tight."""

    def exchange(self, choices: Choices, slack: int, price: float) -> Trade:
        """The best trade that takes at most `slack` bits; `price` is that of the bound."""


class Fusion(NamedTuple):
    """Agents that are made one.

    Attributes:
        members: int64, agents of all groups.
        group: int64 (members,), the group of each.
        first: int64 (groups,), the place in `members` of each group's first agent.
        leads: bool (agents,), who stays: first agents, and agents of no group.
        rows: int64 (groups,), the place of each group among those who stay.
    """

    members: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    leads: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]


class Interaction(ABC):
    """How the damage of agents combines: what one suffers more or less because of what the others play.

    An agent's own damage is not part of it. Two kinds exist: `Coupling`, vectors of agents in the communities of a
    graph, and `Stencil`, neighbours in the rows of a matrix.

    Attributes:
        kind: names it in files and messages.
    """

    kind: ClassVar[str]

    @abstractmethod
    def check(self, agents: int, strategies: int) -> None:
        """Hold it against the game it comes with.

        Raises:
            DataError: it is of another game.
        """

    @abstractmethod
    def check_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Hold it against the layouts of a model's matrices, which are consistent with the agents.

        Raises:
            DataError: it is of another model.
        """

    @abstractmethod
    def added(self, damage: npt.NDArray[np.float32], choices: Choices) -> float:
        """What pairs add to the total cost of a profile, given the agents' own `damage`, in nats per token."""

    @abstractmethod
    def view(self, game: BitGame) -> View:
        """`game`, which has this interaction, as its certificate sees it."""

    @abstractmethod
    def restricted(self, changes: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]) -> Self:
        """A copy in which some agents play strategy `target[s]` when they play s, for each (agents, target)."""

    @abstractmethod
    def fused(self, fusion: Fusion) -> tuple[Self, npt.NDArray[np.float64]]:
        """The interaction of groups, and what the members of each add to one another, float64 (groups, strategies).

        Raises:
            UsageError: such agents cannot be made one.
        """

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All there is to it, for a file."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The inverse of `arrays`.

        Raises:
            DataError, KeyError: they are none of this kind.
        """
