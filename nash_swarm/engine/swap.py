"""Finds the modules of a packed model that can be quick."""

from __future__ import annotations

from typing import Any

from nash_swarm.engine.attention import QuickAttention
from nash_swarm.engine.decoder import QuickDecoder
from nash_swarm.engine.decoder_layer import QuickDecoderLayer
from nash_swarm.engine.gated import QuickGatedMlp
from nash_swarm.engine.norm import QuickNorm
from nash_swarm.engine.quick import Quick, put_in_front, take_away
from nash_swarm.engine.trial import refusal, signature

KINDS: tuple[type[Quick], ...] = (QuickNorm, QuickGatedMlp, QuickAttention, QuickDecoderLayer, QuickDecoder)
"""Parts come first: what they are parts of is recognised by the quick modules in it."""


def quicken(model: Any) -> str | None:
    """Put the quick way in front of every module that is recognised and passes its trial; the rest stays as it is.

    Returns:
        Why not all layers together are one call for a token, naming the module; `None` if they are, or if the model
        does not write text.

    Raises:
        DataError: a packed matrix is damaged.
    """
    reasons: list[str] = []
    for kind in KINDS:
        tried: dict[Any, str | None] = {}
        for path, module in list(model.named_modules()):
            if isinstance(module, Quick) or not kind.resembles(module):
                continue
            if (reason := kind.mismatch(module)) is None:
                put_in_front(kind, module)
                key = signature(module)
                if key not in tried:
                    tried[key] = refusal(module)
                if (reason := tried[key]) is not None:
                    take_away(module)
            if reason is not None:
                reasons.append(f"{path} ({type(module).__name__}): {reason}")
    if not model.can_generate() or any(isinstance(module, QuickDecoder) for module in model.modules()):
        return None
    return reasons[0] if reasons else f"{type(model).__name__} has no layers of a known kind"
