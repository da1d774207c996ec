"""Packed modules in the place of a model's own, for all who build a packed model: from weights, or from files."""

from __future__ import annotations

from torch import nn

from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.runtime.modules import (
    PackedEmbedding,
    PackedLinear,
    PackedWeight,
    TiedHead,
    TiedLookup,
    in_place_of,
)


def build_module(
    layout: Layout, strategies: tuple[int, ...], size: int, original: nn.Module, *, bias: bool | None = None
) -> PackedWeight:
    """The empty packed module for a layout.

    Args:
        layout, strategies, size: see `PackedWeight`.
        original: the module it replaces.
        bias: whether there is one; as in `original` by default.
    """
    if layout.kind in ("embedding", "tied"):
        return in_place_of(original, PackedEmbedding(layout, strategies, size))
    return PackedLinear(layout, strategies, size, _has_bias(original) if bias is None else bias)


def build_tied(embedding: nn.Module, original: nn.Module) -> nn.Module:
    """What takes the place of a module that shares the weight of a packed embedding."""
    assert isinstance(embedding, PackedEmbedding)
    if isinstance(original, nn.Embedding):
        return in_place_of(original, TiedLookup(embedding))
    head = TiedHead(embedding, bias=_has_bias(original))
    if head.bias is not None:
        head.bias = original.bias  # type: ignore[assignment]
    return head


def _has_bias(module: nn.Module) -> bool:
    return getattr(module, "bias", None) is not None
