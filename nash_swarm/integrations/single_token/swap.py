"""Finds the modules of a packed model that can be quick."""

from __future__ import annotations

from typing import Any

from nash_swarm.integrations.single_token.attention import QuickAttention
from nash_swarm.integrations.single_token.decoder import QuickDecoder
from nash_swarm.integrations.single_token.decoder_layer import QuickDecoderLayer
from nash_swarm.integrations.single_token.gated import QuickGatedMlp
from nash_swarm.integrations.single_token.norm import QuickNorm
from nash_swarm.integrations.single_token.quick import Quick, put_in_front

KINDS = (QuickNorm, QuickGatedMlp, QuickAttention, QuickDecoderLayer, QuickDecoder)
"""Parts come first: what they are parts of is recognised by the quick modules in it."""


def quicken(model: Any) -> None:
    """Put the quick way in front of every module that is recognised; the rest stays as it is."""
    for kind in KINDS:
        for module in list(model.modules()):
            if not isinstance(module, Quick) and kind.fits(module):
                put_in_front(kind, module)
