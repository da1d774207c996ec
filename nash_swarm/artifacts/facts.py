"""What a packed model in memory remembers of its budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PackedFacts:
    """Attached to a packed model as `nash_swarm_facts`.

    Attributes:
        scope: what the budget counted, `model` or `linear`.
        parameters: unique parameters in scope.
        heads: output heads and embeddings that share the weight of a packed embedding, their path -> its path.
    """

    scope: str
    parameters: int
    heads: Mapping[str, str]
