"""How the damage of agents combines: what one agent suffers more or less because of what the others play."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.interaction import Choices, Fusion, Interaction, View

if TYPE_CHECKING:
    from nash_swarm.game.bitgame import BitGame
    from nash_swarm.game.tensors import Tensor

_ROUNDING = 1e-9
"""An eigenvalue may be this far below 0, relative to the largest one, by rounding."""
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Coupling(Interaction):
    """Interaction of pairs of agents along the layer-neighbourhood graph.

    Agents i != j that play s and t add graph[C_i, C_j] * <d_i(s), d_j(t)> to the total cost, C_i being agent i's
    community. An agent's interaction with itself is no part of it: its own damage has that already.

    Attributes:
        vectors: float32 (agents, strategies, rank), d_i(s); its inner products are nats per token.
        community: int32 (agents,), the node of the graph an agent belongs to (a group of sibling tensors).
        graph: float64 (communities, communities), symmetric and positive semi-definite; the diagonal is the coupling
            inside a community.
    """

    kind: ClassVar[str] = "coupling"

    vectors: npt.NDArray[np.float32]
    community: npt.NDArray[np.int32]
    graph: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 3 or self.vectors.dtype != np.float32:
            raise DataError(f"coupling vectors must be float32 (agents, strategies, rank), not {_kind(self.vectors)}")
        if self.community.shape != (len(self.vectors),) or self.community.dtype != np.int32:
            raise DataError(f"communities must be int32 ({len(self.vectors)},), not {_kind(self.community)}")
        square = self.graph.ndim == 2 and len(self.graph) == self.graph.shape[1] > 0
        if not square or self.graph.dtype != np.float64:
            raise DataError(f"the graph must be float64 (communities, communities), not {_kind(self.graph)}")
        if self.vectors.size and not (np.isfinite(self.vectors.min()) and np.isfinite(self.vectors.max())):
            raise DataError("the coupling vectors hold NaN or infinite values")
        if len(self.community) and not 0 <= self.community.min() <= self.community.max() < len(self.graph):
            raise DataError(f"communities must be indices into the {len(self.graph)} nodes of the graph")
        if not np.isfinite(self.graph).all() or not np.array_equal(self.graph, self.graph.T):
            raise DataError("the graph must be finite and symmetric")
        values = np.linalg.eigvalsh(self.graph)
        if values[0] < -_ROUNDING * max(values[-1], 0.0):
            raise DataError(f"the graph must be positive semi-definite; its smallest eigenvalue is {values[0]:.3g}")

    @property
    def communities(self) -> int:
        """Number of nodes of the graph."""
        return len(self.graph)

    @property
    def rank(self) -> int:
        """Length of a coupling vector."""
        return self.vectors.shape[2]

    def sums(self, choices: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Sum of the vectors that each community's agents play, float64 (communities, rank)."""
        total = np.zeros((self.communities, self.rank))
        for community, played in self._played(choices):
            for k in range(self.rank):
                total[:, k] += np.bincount(community, weights=played[:, k], minlength=self.communities)
        return total

    def check(self, agents: int, strategies: int) -> None:
        """See `Interaction.check`."""
        found, shape = self.vectors.shape[:2], (agents, strategies)
        if found != shape:
            raise DataError(f"the coupling is of {found} agents and strategies, not {shape}")

    def check_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to check: communities may be of any agents."""

    def view(self, game: BitGame) -> View:
        """See `Interaction.view`."""
        from nash_swarm.game.views import CommunityView

        return CommunityView.of(game)

    def restricted(self, changes: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]) -> Self:
        """See `Interaction.restricted`."""
        vectors = self.vectors.copy()
        for agents, target in changes:
            vectors[agents] = vectors[agents][:, target]
        return replace(self, vectors=vectors)

    def fused(self, fusion: Fusion) -> tuple[Self, npt.NDArray[np.float64]]:
        """See `Interaction.fused`; vectors are summed."""
        members, group, first, leads, rows = fusion
        community = self.community[members]
        if (community != community[first][group]).any():
            raise UsageError("cannot fuse agents of different communities of the coupling's graph")
        parts = self.vectors[members].astype(np.float64)
        total, squares = np.zeros((len(first), *parts.shape[1:])), np.zeros((len(first), parts.shape[1]))
        np.add.at(total, group, parts)
        np.add.at(squares, group, np.square(parts).sum(axis=2))
        weight = 0.5 * self.graph[community[first], community[first]][:, None]
        vectors = self.vectors[leads]
        vectors[rows] = total
        pairs = weight * (np.square(total).sum(axis=2) - squares)
        return replace(self, vectors=vectors, community=self.community[leads]), pairs

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Interaction.arrays`."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Interaction.from_arrays`."""
        return cls(**{part.name: arrays[part.name] for part in fields(cls)})

    def added(self, damage: npt.NDArray[np.float32], choices: Choices) -> float:
        """See `Interaction.added`; the agents' own damage has no part in it."""
        sums = self.sums(choices)
        own = 0.0
        for community, played in self._played(choices):
            own += float(self.graph[community, community] @ np.einsum("ik,ik->i", played, played))
        return 0.5 * (float(np.sum(sums * (self.graph @ sums))) - own)

    def _played(
        self, choices: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]]:
        """Communities of some agents and the vectors they play; chunks keep the float64 copies small."""
        for start in range(0, len(choices), _CHUNK):
            part = slice(start, start + _CHUNK)
            chosen = np.take_along_axis(self.vectors[part], choices[part, None, None].astype(np.intp), axis=1)[:, 0]
            yield self.community[part], chosen.astype(np.float64)


def _kind(array: npt.NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
