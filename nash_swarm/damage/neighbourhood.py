"""The layer-neighbourhood graph: which matrices are siblings, and how far apart in the model two groups of them are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.game.rules import VLLM_FUSION
from nash_swarm.game.tensors import Tensor

_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Communities of agents and their places along the residual stream.

    Attributes:
        community: int32 (agents,), the community of each agent: the siblings that read one input.
        position: float64 (communities,), block in which the community stands; embeddings come before the first block,
            what follows the last block after it.
    """

    community: npt.NDArray[np.int32]
    position: npt.NDArray[np.float64]

    def graph(self, reach: float, strength: float) -> npt.NDArray[np.float64]:
        """Edge weights `strength * exp(-distance / reach)`, distance in blocks: (communities, communities).

        Every community reads and writes the same residual stream, so all are neighbours, the nearer the more. The
        exponential kernel is positive semi-definite on the line (Ornstein & Uhlenbeck 1930), so the coupling is too.
        """
        distance = np.abs(self.position[:, None] - self.position[None])
        return strength * np.exp(-distance / reach) if np.isfinite(reach) else np.full(distance.shape, strength)


def neighbourhood(tensors: Sequence[Tensor]) -> Neighbourhood:
    """Communities of a game's tensors, from their names."""
    numbers = [int(match[1]) for tensor in tensors if (match := _NUMBER.search(tensor.name))]
    last = max(numbers, default=-1) + 1
    index: dict[tuple[str, str], int] = {}
    position: list[float] = []
    community = np.empty(sum(tensor.agents for tensor in tensors), np.int32)
    inside = False
    for tensor in tensors:
        parent, _, leaf = tensor.name.rpartition(".")
        family = next((siblings[0] for siblings in VLLM_FUSION if leaf in siblings), leaf)
        match = _NUMBER.search(tensor.name)
        inside = inside or match is not None
        place = index.setdefault((parent, family), len(index))
        if place == len(position):
            position.append(float(match[1]) if match else float(last if inside else -1))
        community[tensor.span] = place
    return Neighbourhood(community, np.array(position))
