"""LoRA adapters by peft on packed matrices: the packed weights stay as they are, the adapters beside them train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nash_swarm.errors import UsageError
from nash_swarm.quantizers.modules import PackedLinear, TiedHead


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError('adapters need peft; run: pip install "nash-swarm[peft]"') from error
    return peft


def add_adapters(model: nn.Module, config: Any, **settings: Any) -> Any:
    """`peft.get_peft_model` for a packed model: LoRA beside its packed matrices.

    Inputs of packed matrices are multiplied as they are (`activations="fp32"`) from here on: training goes through
    them, and the rounding of inputs has no gradient of its own.

    Args:
        model: a packed model; changed in place, as peft does.
        config: a `peft.LoraConfig`; it is taught the packed modules.
        settings: further arguments of `peft.get_peft_model`.

    Returns:
        A `peft.PeftModel`; its `save_pretrained` writes the adapter alone.

    Raises:
        UsageError: peft is not installed, or the configuration is none of LoRA.
    """
    peft = _peft()
    prepare_config(config)
    _prepare_model(model)
    with _quiet():
        return peft.get_peft_model(model, config, **settings)


def load_adapters(model: nn.Module, folder: str, **settings: Any) -> Any:
    """`peft.PeftModel.from_pretrained` for a packed model.

    Args:
        model: a packed model; changed in place.
        folder: what `save_pretrained` of the adapted model wrote.
        settings: further arguments of `PeftModel.from_pretrained`, `is_trainable` among them.

    Raises:
        UsageError: as `add_adapters`.
    """
    peft = _peft()
    config = peft.PeftConfig.from_pretrained(folder)
    config.inference_mode = not settings.get("is_trainable", False)
    prepare_config(config)
    _prepare_model(model)
    with _quiet():
        return peft.PeftModel.from_pretrained(model, folder, config=config, **settings)
