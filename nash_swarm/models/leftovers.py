"""Tensors of a checkpoint that are not part of the model that is loaded from it, by the names of their groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from nash_swarm.compat.hf import renamer

_REMADE = re.compile(r"(inv_freq|position_ids|token_type_ids|masked_bias|(attn|attention)\.bias|num_batches_tracked)$")
"""Buffers that older checkpoints hold and that every model computes for itself."""
_OF_TEXT = re.compile(r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?")
_LONGEST = 8
"""Groups that are named one by one."""


def text_name(key: str) -> str:
    """What a tensor of the language model inside a multimodal one is called in that language model alone."""
    return _OF_TEXT.sub("", key)


def left_behind(model: Any, stored: Iterable[str], *, text_only: bool = False) -> tuple[str, ...]:
    """Groups of stored tensors that a model has no place for, each with their number, as a reader is told.

    Args:
        model: a transformers model, as it was loaded.
        stored: names of the tensors in its files.
        text_only: the model is the part for text of what is stored, see `text_name`.
    """
    renamed = renamer(model)
    own = set(model.state_dict())
    prefix = f"{model.base_model_prefix}."
    unused: list[str] = []
    used_prefixes = {part for name in own for part in _prefixes(name)}
    for key in stored:
        name, _ = renamed(text_name(key) if text_only else key)
        if any(variant in own for variant in (name, name.removeprefix(prefix), prefix + name)):
            used_prefixes |= set(_prefixes(key))
        elif not _REMADE.search(key):
            unused.append(key)
    groups = Counter(next((part for part in _prefixes(key) if part not in used_prefixes), key) for key in unused)
    named = [f"{name} ({count} tensor{'s' * (count > 1)})" for name, count in sorted(groups.items())[:_LONGEST]]
    if len(groups) > _LONGEST:
        named.append(f"{len(groups) - _LONGEST} more groups of tensors")
    return tuple(named)


def _prefixes(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))
