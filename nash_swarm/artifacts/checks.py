"""Every tensor of a packed model against its checksum, before anything reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nash_swarm.artifacts.packed_config import PackedConfig, checksum
from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError


def check_files(files: Iterable[str | Path], packed: PackedConfig) -> None:
    """Hold every tensor of safetensors files against the checksums in the configuration.

    Raises:
        DataError: a tensor is missing, surplus, cut short or changed.
    """
    import torch
    from safetensors import safe_open

    expected = {f"{name}.packed": entry.checksum for name, entry in packed.tensors.items()} | dict(packed.dense)
    sizes = {f"{name}.packed": entry.size for name, entry in packed.tensors.items()}
    for file in files:
        try:
            # transformers checks files where tensors are to have no memory, which old releases of safetensors take over
            with torch.device("cpu"), safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    if name not in expected:
                        raise DataError(f"{file}: tensor {name!r} does not belong to this model")
                    tensor = opened.get_tensor(name)
                    if tensor.numel() != sizes.get(name, tensor.numel()) or checksum(tensor) != expected.pop(name):
                        raise DataError(f"{file}: tensor {name!r} is damaged: its checksum does not match")
        except DataError:
            raise
        except Exception as error:  # safetensors raises its own kind
            check_api(error)
            raise DataError(f"{file} is damaged or cut short: {error}") from error
    if expected:
        raise DataError(f"{next(iter(expected))!r} is missing from the packed model's files")
