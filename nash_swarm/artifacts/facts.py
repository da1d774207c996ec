"""What a packed model in memory knows of itself beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nash_swarm.game.allocation import Allocation


@dataclass(frozen=True)
class PackedModel:
    """The one attribute of a packed model that is nash-swarm's own, `nash_swarm_packed`.

    Attributes:
        scope: what the budget counted, `model` or `linear`.
        parameters: unique parameters in scope.
        heads: output heads and embeddings that share the weight of a packed embedding, their path -> its path.
        allocation: what was packed, if that was in this process.
        report: what the `nash_swarm.json` beside a loaded model says.
    """

    scope: str
    parameters: int
    heads: Mapping[str, str]
    allocation: Allocation | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
