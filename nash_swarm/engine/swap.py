"""Puts the kernels in front of the modules that a model's family declares, where numbers show that they do the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nash_swarm.engine.attention import FusedAttention
from nash_swarm.engine.decoder import FusedDecoder
from nash_swarm.engine.families import find
from nash_swarm.engine.family import Family
from nash_swarm.engine.fused import Fused, put_in_front, take_away
from nash_swarm.engine.gated import FusedMlp
from nash_swarm.engine.norm import FusedNorm
from nash_swarm.engine.probe import refusal, signature


def fuse(model: Any) -> str | None:
    """Put the kernels in front of every declared module that passes its trial; the rest stays as it is.

    Returns:
        Why not all layers together are one call for a token, naming the family and the module; `None` if they are, or
        if the model does not write text.

    Raises:
        DataError: a packed matrix is damaged.
    """
    reasons: list[str] = []
    for path, decoder in list(model.named_modules()):
        kind = getattr(getattr(decoder, "config", None), "model_type", None)
        family = None if kind is None else find(kind)
        if family is None or not {family.embedding, family.layers} <= set(decoder._modules):
            continue
        reasons += [f"family {kind}, {path}{reason}" for reason in _fuse(decoder, family)]
    if not model.can_generate() or any(isinstance(module, FusedDecoder) for module in model.modules()):
        return None
    return reasons[0] if reasons else f"no family of the model type {model.config.model_type} is declared"


def _fuse(decoder: Any, family: Family) -> Iterator[str]:
    """Each module that is refused, and why."""
    tried: dict[Any, str | None] = {}
    for kind, path, module in _declared(decoder, family):
        if isinstance(module, Fused):
            continue
        if (reason := kind.mismatch(module, family)) is None:
            put_in_front(kind, module, family)
            key = signature(module)
            if key not in tried:
                tried[key] = refusal(module)
            if (reason := tried[key]) is not None:
                take_away(module)
        if reason is not None:
            yield f"{path} ({type(module).__name__}): {reason}"


def _declared(decoder: Any, family: Family) -> Iterator[tuple[type[Fused], str, Any]]:
    """Modules that may be fused, parts before what they are parts of."""
    norms: list[tuple[str, Any]] = []
    mlps: list[tuple[str, Any]] = []
    attentions: list[tuple[str, Any]] = []
    for k, layer in getattr(decoder, family.layers)._modules.items():
        path, inner = f".{family.layers}.{k}", layer._modules
        attention = inner.get(family.attention)
        attentions.append((f"{path}.{family.attention}", attention))
        norms += [(f"{path}.{name}", inner.get(name)) for name in family.norms.values()]
        if attention is not None:
            norms += [(f"{path}.{family.attention}.{name}", attention._modules.get(name)) for name in family.head_norms]
        if family.gates:
            mlps.append((f"{path}.{family.mlp}", inner.get(family.mlp)))
    norms.append((f".{family.norm}", decoder._modules.get(family.norm)))
    declared: tuple[tuple[type[Fused], list[tuple[str, Any]]], ...] = (
        (FusedNorm, norms),
        (FusedMlp, mlps),
        (FusedAttention, attentions),
        (FusedDecoder, [("", decoder)]),
    )
    for kind, modules in declared:
        yield from ((kind, path, module) for path, module in modules if module is not None)
