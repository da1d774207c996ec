"""A transformers quantizer, so that `AutoModelForCausalLM.from_pretrained` loads packed models."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from nash_swarm.artifacts.accounting import config_values
from nash_swarm.artifacts.checks import check_files
from nash_swarm.artifacts.facts import PackedModel
from nash_swarm.artifacts.packed_config import METHOD, PackedConfig, config_digest
from nash_swarm.compat.hf import keep_tied, tied_weights
from nash_swarm.compat.hf_quantizer import (
    ModelQuantizer,
    QuantizationConfigMixin,
    register_quantization_config,
    register_quantizer,
)
from nash_swarm.engine.swap import fuse
from nash_swarm.errors import DataError, SlowerWarning, UsageError
from nash_swarm.models.bounds import check_buffers
from nash_swarm.models.experts import open_experts
from nash_swarm.models.folders import stored_tensors
from nash_swarm.models.kinds import auto_class
from nash_swarm.names import ACTIVATIONS
from nash_swarm.quantizers.runtime.arena import settle
from nash_swarm.quantizers.runtime.assemble import build_module, build_tied
from nash_swarm.quantizers.runtime.modules import PackedWeight, set_activations


@register_quantization_config(METHOD)
class NashSwarmConfig(QuantizationConfigMixin):
    """What stands under `quantization_config` in a packed model's config.json.

    Raises:
        DataError: the values are no packed model's.
    """

    def __init__(self, **values: Any) -> None:
        self.packed = PackedConfig.from_dict(values | {"quant_method": values.get("quant_method", METHOD)})
        self.quant_method = METHOD
        self.owner: Any = None
        """The model configuration that this one is part of, for the digest that covers both."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        if self.owner is None:
            return self.packed.to_dict()
        values = config_values(self.owner, self.packed)
        return {**values["quantization_config"], "digest": config_digest(values)}

    def __iter__(self) -> Any:
        yield from self.to_dict().items()


@register_quantizer(METHOD)
class NashSwarmQuantizer(ModelQuantizer):
    """Builds the packed modules before the weights are read, and reads only files whose every byte checks out."""

    requires_calibration = True

    def is_serializable(self) -> bool:
        """Packed models can be saved with `save_pretrained` too."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Packed weights do not train, but adapters beside them do (`nash_swarm.integrations.peft`)."""
        return True

    def tensors(self, model: Any) -> dict[str, torch.Tensor]:
        """What `save_pretrained` writes: 16-bit tensors as 16 bits, although the model computes in float32."""
        from nash_swarm.artifacts.packed_model import stored_tensors

        return stored_tensors(model, self.quantization_config.packed)

    def before_weights(self, model: Any, files: Sequence[Path]) -> None:
        """Put packed modules where config.json has them.

        Raises:
            DataError: they do not fit the architecture or the files.
            UsageError: see `_check_class`.
        """
        packed: PackedConfig = self.quantization_config.packed
        if files:
            check_folder(files[0].parent)
            check_files(files, packed)
            check_buffers(model, sum(file.stat().st_size for file in files))
        dtype = next(iter(model.parameters())).dtype
        open_experts(model)
        _check_class(model, packed)
        if getattr(model, "pooler", None) is not None and not _has(packed, "pooler"):
            model.pooler = None
        with torch.device("meta"):
            for name, entry in packed.tensors.items():
                original = _check_place(model, name, entry.layout.rows, entry.layout.columns)
                module = build_module(entry.layout, packed.strategies, entry.size, original, bias=entry.bias)
                model.set_submodule(name, module.to(dtype))
            for path, embedding in packed.heads.items():
                layout = packed.tensors[embedding].layout
                original = _check_place(model, path, layout.rows, layout.columns)
                model.set_submodule(path, build_tied(model.get_submodule(embedding), original))
        _check_complete(model, packed)
        if files:
            _check_shapes(model, packed, files[0].parent)
        _untie(model)

    def after_weights(self, model: Any) -> None:
        """Check the packed bytes, and make the model quick.

        Raises:
            DataError: the bytes are damaged.
        """
        packed: PackedConfig = self.quantization_config.packed
        settle(model)
        for module in model.modules():
            if isinstance(module, PackedWeight):
                module.check()
        set_activations(model, ACTIVATIONS[0])
        if (reason := fuse(model)) is not None:
            warnings.warn(
                f"{type(model).__name__} generates text module by module, which is slower than in one call: {reason} "
                f"(transformers {transformers.__version__}, torch {torch.__version__})",
                SlowerWarning,
                stacklevel=2,
            )
        model.nash_swarm_packed = PackedModel(packed.scope, packed.parameters, dict(packed.heads))
        model.config.quantization_config.owner = model.config


def _has(packed: PackedConfig, child: str) -> bool:
    return any(name.split(".")[0] == child for name in (*packed.tensors, *packed.dense))


def _check_class(model: Any, packed: PackedConfig) -> None:
    """Refuse to load a packed model as another class than it was saved as, where its matrices are under other names.

    Raises:
        UsageError: that is asked for.
    """
    saved = (getattr(model.config, "architectures", None) or [""])[0]
    if saved in ("", type(model).__name__):
        return
    modules = {name for name, _ in model.named_modules()}
    if not all(name in modules for name in (*packed.tensors, *packed.heads)):
        loader = auto_class(model.config).__name__
        raise UsageError(
            f"this is a packed {saved}, which cannot be loaded as a {type(model).__name__}; use {loader} or "
            "nash_swarm.load"
        )


def _check_place(model: Any, name: str, rows: int, columns: int) -> Any:
    try:
        module = model.get_submodule(name)
        shape = tuple(module.weight.shape)
    except AttributeError:
        raise DataError(f"config.json: this architecture has no matrix at {name!r}") from None
    if shape not in ((rows, columns), (columns, rows)):
        raise DataError(f"config.json: {name!r} is {shape} in this architecture, not {rows} x {columns}")
    return module


def _check_complete(model: Any, packed: PackedConfig) -> None:
    stored = {f"{name}.packed" for name in packed.tensors} | set(packed.dense)
    # of weights that are tied to each other only one is on disk
    tied = tied_weights(model)
    tied |= {source: target for target, source in tied.items()}
    for name in model.state_dict():
        if name not in stored and tied.get(name) not in stored:
            raise DataError(f"config.json: this architecture has weights {name!r} that the packed model has not")


def check_folder(folder: Path) -> None:
    """Hold the configuration in a packed model's folder against its digest; `load` has done so before.

    Raises:
        DataError: it has been changed.
    """
    from nash_swarm.artifacts.packed_model import read_config

    read_config(folder)


def _check_shapes(model: Any, packed: PackedConfig, folder: Path) -> None:
    # transformers takes memory for a misshapen tensor before it complains
    shapes = {name: shape for name, (_, shape) in stored_tensors(folder).items()}
    for name, tensor in model.state_dict().items():
        if name in packed.dense and shapes.get(name) != tuple(tensor.shape):
            raise DataError(f"config.json: {name!r} is {tuple(tensor.shape)} here and {shapes.get(name)} on disk")


def _untie(model: Any) -> None:
    """Have transformers tie nothing that is packed: what was tied to a packed matrix uses that one already."""
    for name, module in model.named_modules():
        if keys := tied_weights(module):
            prefix = f"{name}." * bool(name)
            own = {
                target: source
                for target, source in keys.items()
                if _is_own(model, prefix + target) and _is_own(model, prefix + source)
            }
            keep_tied(module, own)


def _is_own(model: Any, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return name in dict(model.get_submodule(parent).named_parameters(recurse=False))


def attach(model: Any, packed: PackedConfig, *, settled: bool = True) -> None:
    """Make a model packed in memory what a loaded one is: known as quantized, so that `save_pretrained` works on it.

    Whether it generates text in one call a token is told when it is loaded, not here.

    Args:
        model: with all its packed modules; changed in place.
        packed: from `describe`.
        settled: copy the packed buffers to where they are read fastest; not if they are to stay on disk.
    """
    if settled:
        settle(model)
    set_activations(model, ACTIVATIONS[0])
    fuse(model)
    config = NashSwarmConfig(**packed.to_dict())
    model.config.quantization_config = config
    config.owner = model.config
    model.hf_quantizer = NashSwarmQuantizer(config, pre_quantized=True)
    model.is_quantized = True
    _untie(model)
