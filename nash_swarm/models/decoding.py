"""Checkpoints that only exist in FP8 or MXFP4: their codes and scales become the float32 weights they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError, UsageError

DECODED = ("fp8", "mxfp4")
"""Kinds of quantization, by transformers' `quant_method`, whose folders are taken for original models."""

Stored = Mapping[str, tuple[Path, tuple[int, ...]]]
"""File and shape of every tensor in a directory, by name."""

_FP8_SCALES = ("_scale_inv", "_scale")
"""What the name of an FP8 tensor's scales adds to its own."""
_OF_ACTIVATIONS = (".input_scale", ".activation_scale", ".k_scale", ".v_scale")
_USUAL_BLOCK = (128, 128)
_BLOCKS, _SCALES = "_blocks", "_scales"
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Values of E2M1 codes (OCP Microscaling Formats 1.0, table 5.3.3)."""
_EXPONENT_BIAS = 127
_ONE_BYTE = tuple(
    getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
)


@dataclass(frozen=True)
class Coded:
    """One weight as it is stored.

    Attributes:
        codes: file and name of its codes.
        scales: file and name of the scales of its blocks.
        shape: of the decoded weight.
        block: (rows, columns) that share a scale, where the configuration says so; nothing for MXFP4.
    """

    codes: tuple[Path, str]
    scales: tuple[Path, str]
    shape: tuple[int, ...]
    block: tuple[int, int] | None = None

    def read(self) -> torch.Tensor:
        """The decoded weight, float32.

        Raises:
            DataError: codes and scales cannot be read, or do not fit together.
        """
        codes, scales = read_stored(*self.codes), read_stored(*self.scales)
        try:
            if self.codes[1].endswith(_BLOCKS):
                return decode_mxfp4(codes, scales)
            return decode_fp8(codes, scales, self.block)
        except DataError as error:
            raise DataError(f"{self.codes[0]}: {self.codes[1]!r}: {error}") from None


def quantized_by(config: Any) -> str:
    """The kind of quantization that a configuration (transformers' or JSON values) names, empty for none.

    A model with a part for text may say it there.
    """
    for holder in (config, _get(config, "text_config")):
        found = _get(holder, "quantization_config")
        if found:
            method = _get(found, "quant_method")
            return str(getattr(method, "value", method) or "an unknown method")
    return ""


def require_decodable(config: Any, name: str) -> str:
    """`quantized_by`, after refusing what has an original to be given instead.

    Raises:
        UsageError: the model is quantized in a way that is not decoded.
    """
    method = quantized_by(config)
    if method and method not in DECODED:
        raise UsageError(
            f"{name} is already quantized by {method}; give the original model ({' and '.join(DECODED)} are decoded)"
        )
    return method


def forget_quantization(config: Any) -> None:
    """Take what a configuration says of quantization out of it, in place: its model is an ordinary one from here on."""
    for holder in (config, getattr(config, "text_config", None)):
        if holder is not None and hasattr(holder, "quantization_config"):
            del holder.quantization_config


def find_coded(stored: Stored, values: Any) -> tuple[dict[str, Coded], Stored]:
    """What has to be decoded in a directory, by the names of the weights, and what is there as it is.

    Args:
        stored: the directory's tensors.
        values: its configuration.

    Raises:
        DataError: the configuration does not say how large blocks are.
    """
    method = quantized_by(values)
    if method == "mxfp4":
        return _find_mxfp4(stored)
    if method == "fp8":
        return _find_fp8(stored, values)
    return {}, stored


def decoded_shapes(stored: Stored, values: Any) -> Stored:
    """`stored` as if it held the decoded weights."""
    coded, rest = find_coded(stored, values)
    return {**rest, **{name: (one.codes[0], one.shape) for name, one in coded.items()}}


def decoded_tensors(stored: Stored, values: Any) -> dict[str, torch.Tensor]:
    """All tensors of a directory, decoded ones as float32.

    Raises:
        DataError: one cannot be read or decoded.
    """
    coded, rest = find_coded(stored, values)
    tensors = {name: one.read() for name, one in coded.items()}
    for name, (file, _) in rest.items():
        tensors[name] = read_plain(file, name)
    return tensors


def read_plain(file: Path, name: str, rows: list[int] | None = None) -> torch.Tensor:
    """As `read_stored`, of a tensor that is stored as it is.

    Raises:
        DataError: it is one of codes whose scales are not there.
    """
    tensor = read_stored(file, name, rows)
    if tensor.dtype in _ONE_BYTE:
        raise DataError(f"{file}: {name!r} is stored in 8 bits, without scales")
    return tensor


def read_stored(file: Path, name: str, rows: list[int] | None = None) -> torch.Tensor:
    """A tensor of a safetensors file, as it is there, or these rows of it.

    Raises:
        DataError: it cannot be read.
    """
    from safetensors import safe_open

    try:
        # opened anew each time: pages of a file that stays open count as this process's memory
        with safe_open(file, framework="pt") as opened:
            if rows is None:
                tensor: torch.Tensor = opened.get_tensor(name)
                return tensor
            part = opened.get_slice(name)
            return torch.cat([part[row : row + 1] for row in rows])
    except Exception as error:  # safetensors raises its own kind
        check_api(error)
        raise DataError(f"{file} is damaged or cut short: {error}") from error


def decode_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Weights of OCP's MXFP4: 32 E2M1 codes in a row share an E8M0 exponent.

    Args:
        blocks: two codes a byte, the lower half first, uint8 (..., rows, blocks, 16).
        scales: exponents plus 127, uint8 (..., rows, blocks).

    Returns:
        float32 (rows, 32 * blocks); of experts, which are stored the other way round than transformers multiplies with
        them, (experts, 32 * blocks, rows).

    Raises:
        DataError: the two do not fit together.
    """
    if blocks.dtype != torch.uint8 or scales.dtype != torch.uint8 or blocks.shape[:-1] != scales.shape:
        raise DataError(f"no MXFP4: blocks {tuple(blocks.shape)} and scales {tuple(scales.shape)}")
    table = torch.tensor(_FP4)
    pairs = torch.stack((table[(blocks & 15).long()], table[(blocks >> 4).long()]), -1)
    values = torch.ldexp(pairs.flatten(-2), (scales.int() - _EXPONENT_BIAS)[..., None]).flatten(-2)
    return values.transpose(-1, -2).contiguous() if values.ndim > 2 else values


def decode_fp8(codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int] | None) -> torch.Tensor:
    """Weights in 8-bit floating point, times the scales of their blocks.

    Args:
        codes: (..., rows, columns), of one of torch's 8-bit types.
        scales: (..., blocks down, blocks across), (..., rows), or one for all; uint8 for exponents plus 127.
        block: (rows, columns) of a block, the last of which may be cut off; by default what divides the codes evenly.

    Returns:
        float32, of the shape of the codes.

    Raises:
        DataError: the two do not fit together.
    """
    if codes.dtype not in _ONE_BYTE:
        raise DataError(f"no FP8: it is {str(codes.dtype).removeprefix('torch.')}")
    values = codes.float()
    steps = (scales.float() - _EXPONENT_BIAS).exp2() if scales.dtype == torch.uint8 else scales.float()
    if steps.numel() == 1:
        return values * steps.reshape(())
    steps = steps[..., None] if steps.ndim == values.ndim - 1 else steps
    rows, columns = values.shape[-2:] if values.ndim > 1 else (0, 0)
    if steps.ndim == values.ndim and steps.shape[:-2] == values.shape[:-2]:
        down, across = steps.shape[-2:]
        even = (
            (rows // down, columns // across) if down and across and not (rows % down or columns % across) else (0, 0)
        )
        height, width = block or even
        height, width = min(height, rows), min(width, columns)
        if height and width and (-(-rows // height), -(-columns // width)) == (down, across):
            grid = steps.repeat_interleave(height, -2)[..., :rows, :]
            return values.mul_(grid.repeat_interleave(width, -1)[..., :columns])
    raise DataError(f"no FP8: codes {tuple(codes.shape)} and scales {tuple(scales.shape)}, in blocks of {block}")


def _find_mxfp4(stored: Stored) -> tuple[dict[str, Coded], Stored]:
    coded: dict[str, Coded] = {}
    for key, (file, shape) in stored.items():
        name = key.removesuffix(_BLOCKS)
        if name != key and name + _SCALES in stored and len(shape) >= 3:
            *outer, rows, groups, half = shape
            inner = (groups * half * 2, rows) if outer else (rows, groups * half * 2)
            scales = name + _SCALES
            coded[name] = Coded((file, key), (stored[scales][0], scales), (*outer, *inner))
    parts = {name + end for name in coded for end in (_BLOCKS, _SCALES)}
    return coded, {key: place for key, place in stored.items() if key not in parts}


def _find_fp8(stored: Stored, values: Any) -> tuple[dict[str, Coded], Stored]:
    block = _block(_get(values, "quantization_config") or _get(_get(values, "text_config"), "quantization_config"))
    coded: dict[str, Coded] = {}
    scales: set[str] = set()
    for key, (file, shape) in stored.items():
        for scale in _scale_names(key):
            if scale in stored and math.prod(stored[scale][1]) <= math.prod(shape):
                coded[key] = Coded((file, key), (stored[scale][0], scale), shape, block)
                scales.add(scale)
                break
    left = {key for key in stored if key in scales or key in coded or key.endswith(_OF_ACTIVATIONS)}
    return coded, {key: place for key, place in stored.items() if key not in left}


def _block(quantization: Any) -> tuple[int, int] | None:
    """Rows and columns that share a scale; `None` where the configuration says that there are no blocks."""
    if isinstance(quantization, Mapping) and "weight_block_size" not in quantization:
        return _USUAL_BLOCK
    given = _get(quantization, "weight_block_size")
    if given is None:
        return None
    sides = list(given) if isinstance(given, list | tuple) else []
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise DataError(f"config.json: weight_block_size = {str(given)[:40]} is no block")
    return sides[0], sides[1]


def _scale_names(key: str) -> Iterator[str]:
    yield from (key + end for end in _FP8_SCALES)
    if key.endswith(".weight"):
        yield key.removesuffix("weight") + "scale"


def _get(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)
