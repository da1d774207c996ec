"""What a packed model's files hold, read without building the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nash_swarm.artifacts.checks import check_files
from nash_swarm.artifacts.packed_model import COUNTED, WEIGHTS, counted_bytes, read_config, read_report
from nash_swarm.files.named import require_packed


@dataclass(frozen=True)
class Contents:
    """A packed model from outside.

    Attributes:
        scope: what the budget counted.
        parameters: unique parameters in scope.
        file_bytes: bytes on disk that the budget covers.
        bits_per_parameter: packed bits in scope over `parameters`, everything included.
        files: bytes of each file.
        weight_shares: share of the weights that has each width.
        tensor_bits: bits per weight of each packed tensor, scales and all.
        tensor_weights: weights of each packed tensor, without padding.
        tensor_shares: share of each packed tensor's weights that has each width.
        report: what the model's `nash_swarm.json` says.
    """

    scope: str
    parameters: int
    file_bytes: int
    bits_per_parameter: float
    files: Mapping[str, int]
    weight_shares: Mapping[int, float]
    tensor_bits: Mapping[str, float]
    tensor_weights: Mapping[str, int]
    tensor_shares: Mapping[str, Mapping[int, float]]
    report: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def by_module(self) -> dict[str, tuple[int, float]]:
        """Tensors and their mean bits per weight by the last part of their path, e.g. ``down_proj``."""
        groups: dict[str, list[float]] = {}
        for name, bits in self.tensor_bits.items():
            groups.setdefault(name.rsplit(".", 1)[-1], []).append(bits)
        return {name: (len(bits), sum(bits) / len(bits)) for name, bits in groups.items()}


def read_contents(path: str | Path) -> Contents:
    """Read a packed model's files.

    Raises:
        DataError: they are no packed model's, or damaged.
    """
    from safetensors import safe_open

    folder = require_packed(path)
    config = read_config(folder)
    weights = dict.fromkeys(config.strategies, 0.0)
    bits: dict[str, float] = {}
    shares: dict[str, dict[int, float]] = {}
    packed_bytes = 0
    check_files([folder / WEIGHTS], config)
    with safe_open(folder / WEIGHTS, framework="np") as file:
        for name, entry in config.tensors.items():
            tensor = entry.layout.format.read(file.get_tensor(f"{name}.packed"), entry.layout, config.strategies)
            packed_bytes += len(tensor.buffer)
            bits[name] = len(tensor.buffer) * 8 / entry.layout.weights
            found, cells = np.unique(tensor.widths, return_counts=True)
            shares[name] = dict(zip(found.tolist(), (cells / tensor.widths.size).tolist(), strict=True))
            for width, share in shares[name].items():
                weights[width] = weights.get(width, 0.0) + share * entry.layout.weights
    total = sum(weights.values())
    size = counted_bytes(folder)
    return Contents(
        config.scope,
        config.parameters,
        size,
        (size if config.scope == "model" else packed_bytes) * 8 / config.parameters,
        {name: (folder / name).stat().st_size for name in COUNTED if (folder / name).is_file()},
        {width: count / total for width, count in weights.items()},
        bits,
        {name: entry.layout.weights for name, entry in config.tensors.items()},
        shares,
        read_report(folder),
    )
