"""What a game knows of a model's matrices: which agents are theirs."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt


class Tensor(Protocol):
    """One matrix of the model and the grid of agents it is cut into, numbered row-major from `start`."""

    @property
    def name(self) -> str:
        """Path of the module in the model."""

    @property
    def kind(self) -> str:
        """What the module is; ``tied`` is an embedding that is the output head too."""

    @property
    def rows(self) -> int:
        """Outputs."""

    @property
    def columns(self) -> int:
        """Inputs."""

    @property
    def ordered(self) -> bool:
        """Whether the game has an order of its columns."""

    @property
    def start(self) -> int:
        """Index of its first agent."""

    @property
    def grid(self) -> tuple[int, int]:
        """Agents along rows and along columns."""

    @property
    def agents(self) -> int:
        """Number of its agents."""

    @property
    def span(self) -> slice:
        """Where its agents stand in the game's arrays."""

    @property
    def weights(self) -> int:
        """Number of its weights."""

    def check(self, strategies: tuple[int, ...]) -> None:
        """Refuse strategies that its agents cannot have.

        Raises:
            DataError: there are some.
        """

    def expand(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of its agents, shape (agents,), spread over what widths are given for."""
