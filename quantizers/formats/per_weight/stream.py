"""The codes of single weights: those of each width in row-major order, one run of bits per width."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native.bitstream import read_bits, stream_bytes, write_bits
from nash_swarm.quantizers.formats.native.grid import scale_table


def code_bytes(widths: npt.NDArray[Any]) -> int:
    """Bytes of the codes of weights with these widths."""
    return sum(stream_bytes(int(count), bits) for bits, count in enumerate(np.bincount(widths.ravel())) if count)


def pack_codes(codes: npt.NDArray[np.uint8], widths: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Codes (rows, columns) as a byte stream, narrowest width first."""
    return np.concatenate([write_bits(codes[widths == bits], bits) for bits in np.unique(widths).tolist()])


def unpack_codes(stream: npt.NDArray[np.uint8], widths: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Inverse of `pack_codes`."""
    codes = np.zeros(widths.shape, np.uint8)
    at = 0
    for bits in np.unique(widths).tolist():
        chosen = widths == bits
        count = int(chosen.sum())
        codes[chosen] = read_bits(stream[at:], count, bits)
        at += stream_bytes(count, bits)
    return codes


def dequantize(
    codes: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.uint8],
    scale_codes: npt.NDArray[np.uint8],
    zeros: npt.NDArray[np.uint8],
    base: float,
    group_size: int,
) -> npt.NDArray[np.float32]:
    """Weights (rows, columns): `code * 255 / (2**bits - 1) - zero` steps of the group's scale."""
    group = np.arange(codes.shape[1]) // group_size
    scales = scale_table(base)[scale_codes][:, group]
    step = np.float32(255.0) / (np.exp2(widths.astype(np.float32)) - np.float32(1.0))
    return (codes.astype(np.float32) * step - zeros[:, group].astype(np.float32)) * scales
