"""Names of transformers that its documentation does not promise; one that is gone is an `ApiChangedError`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nash_swarm.compat.versions import using

_EXPERTS = ("has_gate", "has_bias", "is_transposed", "_apply_gate")
"""What `use_experts_implementation` gives every class of experts that follows transformers' conventions."""


def renamer(model: Any) -> Callable[[str], tuple[str, bool]]:
    """What a stored tensor is called in a model, and whether transformers would compute the model's of it."""
    with using("transformers"):
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key

        transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if not isinstance(transform, WeightRenaming)]

    def renamed(key: str) -> tuple[str, bool]:
        with using("transformers"):
            name, converter = rename_source_key(key, renamings, converters)
        return name, converter is not None

    return renamed


def class_names(task: str) -> Mapping[str, Any]:
    """Names of classes by type of model, of ``""`` (the bare models), ``"CAUSAL_LM"`` or ``"MASKED_LM"``."""
    with using("transformers"):
        from transformers.models.auto import modeling_auto

        name = f"MODEL_FOR_{task}_MAPPING_NAMES" if task else "MODEL_MAPPING_NAMES"
        mapping: Mapping[str, Any] = getattr(modeling_auto, name)
    return mapping


def computed_weights(model: Any) -> list[re.Pattern[str]]:
    """Patterns of the names of weights that a model computes, though it holds them like weights (Marian)."""
    return [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()]


def mark_initialized(part: Any) -> None:
    """Keep transformers from filling a module or tensor with random numbers."""
    part._is_hf_initialized = True


def tied_weights(module: Any) -> dict[str, str]:
    """Names of weights that are tied, each with that of the one it is tied to."""
    return dict(getattr(module, "all_tied_weights_keys", None) or {})


def keep_tied(module: Any, tied: dict[str, str]) -> None:
    """Have transformers tie these weights of a module and no others."""
    module.all_tied_weights_keys = tied
    if not tied:
        # what a later `tie_weights()` goes by; the class's table stays as it is
        module._tied_weights_keys = {}


def follows_experts_protocol(module: Any) -> bool:
    """Whether a module is a class of experts that follows transformers' conventions."""
    return all(hasattr(module, fact) for fact in _EXPERTS)


def gated(experts: Any, inner: Any) -> Any:
    """What experts make of the outputs of their fused first matrix: gate times value."""
    with using("transformers"):
        gate = experts._apply_gate
    return gate(inner)


def rescale_rwkv(model: Any) -> None:
    """Do what the first forward pass of RWKV does to its weights; in place."""
    with using("transformers"):
        rescale = model._rescale_layers
    rescale()


def cached_in_hub(name: str, file: str, **options: Any) -> str | None:
    """Path of a file of a model on the hub, see `transformers.utils.cached_file`."""
    with using("transformers"):
        from transformers.utils import cached_file
    path: str | None = cached_file(name, file, **options)
    return path


def register_custom_modules(config: Any, mapping: Mapping[Any, Any]) -> None:
    """Tell a configuration of peft which class of adapters goes with which class of layers."""
    with using("peft"):
        config._register_custom_module(mapping)
