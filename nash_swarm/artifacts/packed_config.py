"""How a packed model describes itself in `config.json`: enough to rebuild its modules and to check every byte."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nash_swarm.errors import DataError
from nash_swarm.files.known import METHOD as METHOD
from nash_swarm.names import SCOPES
from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.formats.known import parse_layout

FORMAT = 3
_OLDER = (1, 2)
_VOLATILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")
"""What transformers writes as it pleases and no computation depends on."""
_ENTRY = re.compile(r"(.*) (\d{1,12}) ([0-9a-f]{16})")


def checksum(tensor: torch.Tensor) -> str:
    """Sixteen hexadecimal digits of BLAKE2b over a tensor's type, shape and bytes as they are on disk."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{plain.dtype} {list(plain.shape)} ".encode(), digest_size=8)
    digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_digest(values: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of BLAKE2b over a whole config.json, as JSON values, but what may differ freely.

    Over the values written without spaces and with sorted keys, without `quantization_config.digest` and the names in
    `_VOLATILE` at the top.
    """
    kept = {name: value for name, value in values.items() if name not in _VOLATILE}
    packed = {name: value for name, value in kept["quantization_config"].items() if name != "digest"}
    text = json.dumps(kept | {"quantization_config": packed}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_digest(values: Mapping[str, Any]) -> None:
    """Hold a whole config.json, as JSON values, against the digest in it.

    Raises:
        DataError: it has been changed, or there is no digest.
    """
    packed = values["quantization_config"]
    if packed.get("digest") != config_digest(values):
        raise DataError("config.json is damaged: its digest does not match")


@dataclass(frozen=True)
class PackedEntry:
    """One packed tensor: its layout, whether its module has a bias, the size of its buffer, and its checksum."""

    layout: Layout
    bias: bool
    size: int
    checksum: str

    def text(self) -> str:
        """One line, e.g. ``linear 576x1536 g64 a576x1 ob 41234 0123456789abcdef``."""
        return f"{self.layout.text(self.bias)} {self.size} {self.checksum}"

    @classmethod
    def parse(cls, name: str, text: object) -> PackedEntry:
        """Inverse of `text`.

        Raises:
            DataError: the text is not of that form.
        """
        match = _ENTRY.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise DataError(f"config.json: the entry of tensor {name!r} cannot be read")
        try:
            layout, bias = parse_layout(name, match[1])
        except DataError as error:
            raise DataError(f"config.json: the entry of tensor {name!r} cannot be read: {error}") from error
        return cls(layout, bias, int(match[2]), match[3])


@dataclass(frozen=True)
class PackedConfig:
    """Everything a reader needs beside the tensors themselves.

    Attributes:
        strategies: bit-widths of the allocation.
        scope: what the budget counted, `model` or `linear`.
        parameters: unique parameters in scope.
        tensors: packed tensors by module path.
        dense: checksums of the 16-bit tensors by their name in the file.
        heads: output heads and embeddings that share the weight of a packed embedding: their path -> its path.
    """

    strategies: tuple[int, ...]
    scope: str
    parameters: int
    tensors: Mapping[str, PackedEntry]
    dense: Mapping[str, str]
    heads: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as they stand under `quantization_config`."""
        return {
            "quant_method": METHOD,
            "format": FORMAT,
            "strategies": list(self.strategies),
            "scope": self.scope,
            "parameters": self.parameters,
            "tensors": {name: entry.text() for name, entry in self.tensors.items()},
            "dense": dict(self.dense),
            "heads": dict(self.heads),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PackedConfig:
        """Inverse of `to_dict`; believes nothing.

        Raises:
            DataError: a field is missing or not what it should be, or the format is a newer one.
        """
        if values.get("quant_method") != METHOD:
            raise DataError("config.json: this is no model packed by nash-swarm")
        if values.get("format") != FORMAT:
            said, older = values.get("format"), values.get("format") in _OLDER
            advice = "the model must be packed again" if older else "a newer nash-swarm wrote it"
            raise DataError(f"config.json: format {said!r} is not {FORMAT}; {advice}")
        strategies, tensors = values.get("strategies"), values.get("tensors")
        dense, heads = values.get("dense"), values.get("heads")
        if not isinstance(strategies, list) or not strategies or any(type(bits) is not int for bits in strategies):
            raise DataError("config.json: the strategies of the packed model cannot be read")
        if not all(_is_table(table) for table in (tensors, dense, heads)):
            raise DataError("config.json: the tensors of the packed model cannot be read")
        assert isinstance(tensors, dict) and isinstance(dense, dict) and isinstance(heads, dict)
        entries = {name: PackedEntry.parse(name, text) for name, text in tensors.items()}
        if not all(set(strategies) <= set(entry.layout.format.strategies) for entry in entries.values()):
            raise DataError("config.json: the strategies of the packed model cannot be read")
        for head, embedding in heads.items():
            if embedding not in entries or entries[embedding].layout.kind not in ("tied", "embedding"):
                raise DataError(f"config.json: {head!r} is tied to {embedding!r}, which is no packed embedding")
        parameters = values.get("parameters")
        if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters <= 0:
            raise DataError("config.json: the parameter count cannot be read")
        scope = values.get("scope")
        if scope not in SCOPES:
            raise DataError(f"config.json: the scope is {scope!r}, not one of {', '.join(SCOPES)}")
        return cls(tuple(sorted(set(strategies))), scope, parameters, entries, dense, heads)


def _is_table(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) for pair in values.items() for v in pair)
