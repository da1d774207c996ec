"""How the damage of agents combines: what one agent suffers more or less because of what the others play."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError

_ROUNDING = 1e-9
"""An eigenvalue may be this far below 0, relative to the largest one, by rounding."""
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Coupling:
    """Interaction of pairs of agents along the layer-neighbourhood graph.

    Agents i != j that play s and t add graph[C_i, C_j] * <d_i(s), d_j(t)> to the total cost, C_i being agent i's
    community. An agent's interaction with itself is no part of it: its own damage has that already.

    Attributes:
        vectors: float32 (agents, strategies, rank), d_i(s); its inner products are nats per token.
        community: int32 (agents,), the node of the graph an agent belongs to (a group of sibling tensors).
        graph: float64 (communities, communities), symmetric and positive semi-definite; the diagonal is the coupling
            inside a community.
    """

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

    def interaction(self, choices: npt.NDArray[np.uint8]) -> float:
        """What the pairs add to the total cost of a profile, in nats per token."""
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
