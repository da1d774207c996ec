"""LoRA adapters by peft beside packed matrices: the packed weights stay as they are, the adapters train."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from nash_swarm import extras
from nash_swarm.compat.hf import register_custom_modules
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.runtime.modules import PackedEmbedding, PackedLinear, TiedHead, TiedLookup

_TABLES = (PackedEmbedding, TiedHead, TiedLookup)


def add_adapters(model: nn.Module, config: Any, **settings: Any) -> Any:
    """`peft.get_peft_model` for a packed model.

    Gradients go through packed matrices as through dense ones; where their inputs are rounded to 8 bits (see
    `set_activations`) they are those of inputs that are not.

    Args:
        model: a packed model; changed in place, as peft does.
        config: a `peft.LoraConfig`, which learns about packed modules.
        settings: further arguments of `peft.get_peft_model`.

    Returns:
        A `peft.PeftModel`. Its `save_pretrained` writes the adapters alone.

    Raises:
        UsageError: peft is not installed, or the configuration is not one of LoRA or targets an embedding.
    """
    _know_packed(config)
    with _known_layers():
        return _peft().get_peft_model(model, config, **settings)


def load_adapters(model: nn.Module, folder: str | Path, **settings: Any) -> Any:
    """`peft.PeftModel.from_pretrained` for a packed model.

    Args:
        model: the packed model that the adapters were trained beside, or another of its shape; changed in place.
        folder: what `save_pretrained` of the model with adapters wrote.
        settings: further arguments of `PeftModel.from_pretrained`, such as `is_trainable`.

    Raises:
        UsageError: as `add_adapters`.
    """
    config = _peft().PeftConfig.from_pretrained(str(folder))
    _know_packed(config)
    with _known_layers():
        return _peft().PeftModel.from_pretrained(model, str(folder), config=config, **settings)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"adapters need peft; {extras.how_to_install('peft')}") from error
    return peft


def _know_packed(config: Any) -> None:
    if not isinstance(config, _peft().LoraConfig):
        raise UsageError(f"adapters on packed matrices are LoRA's; a {type(config).__name__} is none of them")
    if config.use_dora or config.init_lora_weights not in (True, False, "gaussian"):
        raise UsageError(
            "adapters on packed matrices are plain LoRA's, whose start does not depend on weights: leave out use_dora, "
            "and let init_lora_weights be True, False or 'gaussian'"
        )
    register_custom_modules(config, {PackedLinear: _lora_layer()} | dict.fromkeys(_TABLES, _refuse))


def _refuse(table: nn.Module, *_: Any, **__: Any) -> NoReturn:
    raise UsageError(
        "adapters go beside packed linear layers, not beside embeddings or an output head that is tied to one: leave "
        f"{table} out of target_modules"
    )


@contextmanager
def _known_layers() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft asks every model of transformers by the old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Unsupported layer type .*PackedLinear")
        yield


@cache
def _lora_layer() -> Any:
    from peft.tuners.lora.layer import Linear

    class PackedLora(Linear):
        """LoRA beside a packed matrix: it cannot be merged into the codes."""

        def merge(self, *_: Any, **__: Any) -> NoReturn:
            """Refused.

            Raises:
                UsageError: always.
            """
            raise UsageError(
                "adapters cannot be merged into packed weights; merge them into the original and pack that"
            )

    return PackedLora
