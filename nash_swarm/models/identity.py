"""A digest that tells whether two models have the same weights, from a few rows of every tensor."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from nash_swarm.models.experts import prepare
from nash_swarm.models.offload import checkpoint_of

_ROWS = 8
_DIGITS = 16


def weights_digest(model: Any) -> str:
    """Sixteen hexadecimal digits of a model's weights: those of no other model, barring accident.

    The same for a model in memory and one that stays on disk, before and after `prepare`, and whether an output head
    that has the weights of the embedding is tied to it or a copy: every tensor counts once, by shape and content.

    Args:
        model: an original model in float32; modules that settle their weights do so, see `settle_weights`.
    """
    model = prepare(model)
    found = {_digest(model, name, parameter) for name, parameter in model.named_parameters()}
    return hashlib.blake2b("".join(sorted(found)).encode(), digest_size=_DIGITS // 2).hexdigest()


def _digest(model: Any, name: str, parameter: torch.Tensor) -> str:
    last = len(parameter) - 1 if parameter.ndim > 1 else 0
    rows = sorted({last * step // (_ROWS - 1) for step in range(_ROWS)}) if parameter.ndim > 1 else None
    checkpoint = checkpoint_of(model)
    if parameter.is_meta and checkpoint is not None:
        values = checkpoint.sample(name, rows)
    else:
        values = parameter.detach() if rows is None else parameter.detach()[rows]
    content = values.float().contiguous().numpy().tobytes()
    return hashlib.blake2b(f"{tuple(parameter.shape)}".encode() + content, digest_size=_DIGITS // 2).hexdigest()
