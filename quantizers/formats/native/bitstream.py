"""Small integers of one fixed width as a stream of bits, most significant bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def stream_bytes(count: int, bits: int) -> int:
    """Bytes of `count` integers of `bits` bits each."""
    return -(-count * bits // 8)


def write_bits(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """`values` (any shape, below 2**bits, bits <= 8) as a byte stream, padded with zeros."""
    flat = values.astype(np.uint8).ravel()
    if bits == 8:
        return flat
    planes = (flat[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(planes)


def read_bits(stream: npt.NDArray[np.uint8], count: int, bits: int) -> npt.NDArray[np.uint8]:
    """Inverse of `write_bits`, uint8 (count,)."""
    if bits == 8:
        return stream[:count].copy()
    planes = np.unpackbits(stream, count=count * bits).reshape(count, bits)
    values = np.zeros(count, np.uint8)
    for i in range(bits):
        values = (values << np.uint8(1)) | planes[:, i]
    return values
