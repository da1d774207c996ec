"""What a packed model costs on disk, known to the byte before it is packed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from nash_swarm.artifacts.packed_config import PackedConfig, PackedEntry, config_digest
from nash_swarm.quantizers.formats.base import Layout

REPORT_BYTES = 2560
"""Reserved for the model card and `nash_swarm.json`, whose figures are not known before packing."""


def half_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The 16-bit type a floating-point tensor is stored in: float16 unless its values need bfloat16's range."""
    if tensor.dtype == torch.bfloat16:
        return torch.bfloat16
    largest = float(tensor.detach().abs().max()) if tensor.numel() and not tensor.is_meta else 0.0
    return torch.float16 if largest <= torch.finfo(torch.float16).max else torch.bfloat16


def dense_tensors(model: torch.nn.Module, packed: Iterable[str], users: Iterable[str]) -> dict[str, torch.Tensor]:
    """What stays in 16 bits: every parameter and persistent buffer but the packed matrices; shared tensors once."""
    left_out = {f"{name}.{field}" for name in packed for field in ("weight", "packed")}
    left_out |= {f"{name}.weight" for name in users}
    found: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        # tensors without memory have no address
        key = (id(tensor) if tensor.is_meta else tensor.data_ptr(), tuple(tensor.shape))
        if name in left_out or (tensor.numel() and key in seen):
            continue
        seen.add(key)
        found[name] = tensor.detach()
    return found


def config_values(config: Any, packed: PackedConfig) -> dict[str, Any]:
    """A transformers configuration as JSON values, with the packed one in it."""
    plain = copy.deepcopy(config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    values: dict[str, Any] = json.loads(plain.to_json_string(use_diff=True))
    return values | {"quantization_config": packed.to_dict()}


def config_text(model: Any, packed: PackedConfig) -> str:
    """The text of `config.json`: the model's own configuration and the packed one."""
    values = config_values(model.config, packed)
    values["dtype"] = "float32"
    # `save_pretrained` adds it to the configuration: it must not come as a surprise to the budget
    values["architectures"] = [type(model).__name__]
    values["quantization_config"]["digest"] = config_digest(values)
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def generation_text(model: Any) -> str:
    """The text of `generation_config.json`; empty if the model does not generate."""
    generation = getattr(model, "generation_config", None)
    return "" if generation is None else str(generation.to_json_string(use_diff=True))


def fixed_bytes(
    model: Any, tensors: Iterable[Layout], users: Mapping[str, str], strategies: tuple[int, ...], scope: str
) -> int:
    """Bytes on disk that no choice of widths changes; an upper bound that is tight to a few hundred bytes.

    Args:
        model: the original model.
        tensors: layouts of the matrices that will be packed.
        users: what shares the weight of a packed embedding, path -> path of the embedding.
        strategies: bit-widths.
        scope: `linear` counts only the packed matrices themselves.
    """
    layouts = list(tensors)
    own = sum(layout.fixed_bytes(len(strategies)) for layout in layouts)
    if scope == "linear":
        return own
    largest = {
        layout.name: int(layout.memory(strategies)[:, -1].sum()) // 8 + layout.fixed_bytes(len(strategies))
        for layout in layouts
    }
    dense = dense_tensors(model, largest, users)
    modules = dict(model.named_modules())
    entries = {
        layout.name: PackedEntry(
            layout, getattr(modules[layout.name], "bias", None) is not None, largest[layout.name], "0" * 16
        )
        for layout in layouts
    }
    placeholder = PackedConfig(
        strategies, scope, sum(parameter.numel() for parameter in model.parameters()), entries,
        dict.fromkeys(dense, "0" * 16), users,
    )  # fmt: skip
    dense_bytes = {
        name: tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())
        for name, tensor in dense.items()
    }
    shapes = {name: (list(tensor.shape), dense_bytes[name]) for name, tensor in dense.items()}
    shapes |= {f"{name}.packed": ([size], size) for name, size in largest.items()}
    texts = config_text(model, placeholder), generation_text(model)
    return own + sum(dense_bytes.values()) + _header_bytes(shapes) + sum(len(t.encode()) for t in texts) + REPORT_BYTES


def _header_bytes(entries: Mapping[str, tuple[list[int], int]]) -> int:
    """Upper bound of a safetensors header: every offset written with the digits of the largest one."""
    end = sum(size for _, size in entries.values())
    table: dict[str, Any] = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [end, end]} for name, (shape, _) in entries.items()
    }
    table["__metadata__"] = {"format": "pt"}
    return 8 + -(-len(json.dumps(table, separators=(",", ":")).encode()) // 8) * 8
