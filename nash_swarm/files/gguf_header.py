"""The header of a GGUF file held against the file's size, before a reader that believes it takes memory for it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (magic, version, counts, key-value pairs, tensor
infos, padding, data).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nash_swarm.errors import DataError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 1 << 16
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        numbers: integer metadata by key.
        elements: weights by tensor name.
    """

    numbers: dict[str, int]
    elements: dict[str, int]


def read_header(path: str | Path) -> Header:
    """Read and check a GGUF header: every count, length and offset must lie inside the file.

    Raises:
        DataError: one does not, names repeat, or the file is no little-endian GGUF file of a known version.
    """
    from gguf.constants import GGML_QUANT_SIZES

    size = Path(path).stat().st_size
    blocks = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
    with Path(path).open("rb") as file:
        cursor = _Cursor(file, size, str(path))
        if cursor.take(4) != _MAGIC:
            raise DataError(f"{path} is no GGUF file")
        if (version := cursor.number("I")) not in _VERSIONS:
            raise DataError(f"{path}: GGUF version {version} is not one of {', '.join(map(str, _VERSIONS))}")
        tensors, pairs = cursor.number("Q"), cursor.number("Q")
        # the shortest pair and the shortest tensor info bound how many there can be
        cursor.need(pairs * 13 + tensors * 32)
        numbers: dict[str, int] = {}
        keys: set[str] = set()
        for _ in range(pairs):
            key = cursor.text(_LONGEST_NAME)
            if key in keys:
                raise DataError(f"{path}: the key {key!r} occurs twice")
            keys.add(key)
            if (value := cursor.value(cursor.number("I"))) is not None:
                numbers[key] = value
        elements: dict[str, int] = {}
        ends = [0]
        alignment = numbers.get(_ALIGNMENT, 32)
        if alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise DataError(f"{path}: the alignment {alignment} is no power of two")
        for _ in range(tensors):
            name = cursor.text(_LONGEST_NAME)
            if name in elements:
                raise DataError(f"{path}: the tensor {name!r} occurs twice")
            if not 0 < (dimensions := cursor.number("I")) <= _MOST_DIMENSIONS:
                raise DataError(f"{path}: the tensor {name!r} has {dimensions} dimensions")
            shape = [cursor.number("Q") for _ in range(dimensions)]
            kind, offset = cursor.number("I"), cursor.number("Q")
            if kind not in blocks:
                raise DataError(f"{path}: the tensor {name!r} has the unknown type {kind}")
            weights, block_bytes = blocks[kind]
            count = math.prod(shape)
            if not 0 < count <= size * weights or shape[0] % weights or offset % alignment:
                raise DataError(f"{path}: the tensor {name!r} is {shape}, more than the file holds or no whole blocks")
            elements[name] = count
            ends.append(offset + count // weights * block_bytes)
        start = -(-cursor.at // alignment) * alignment
        if start + max(ends) > size:
            raise DataError(f"{path} is cut short: its tensors end {start + max(ends) - size} bytes behind it")
    return Header(numbers, elements)


class _Cursor:
    """Reads forward through a file and never behind its end."""

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file, self._size, self._name, self.at = file, size, name, 0

    def need(self, count: int) -> None:
        if count > self._size - self.at:
            raise DataError(f"{self._name} is damaged: a count or length at byte {self.at} leads behind its end")

    def take(self, count: int) -> bytes:
        self.need(count)
        self.at += count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self.need(count)
        self.at += count
        self._file.seek(self.at)

    def number(self, kind: str) -> int:
        value: int = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]
        return value

    def text(self, longest: int) -> str:
        length = self.number("Q")
        if length > longest:
            raise DataError(f"{self._name} is damaged: a name of {length} bytes at byte {self.at}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise DataError(f"{self._name} is damaged: a name at byte {self.at} is no UTF-8") from None

    def value(self, kind: int) -> int | None:
        """Pass over a value; returns it if it is an integer."""
        if kind in _SCALARS:
            value = self.number(_SCALARS[kind])
            return value if isinstance(value, int) else None
        if kind == _STRING:
            self.skip(self.number("Q"))
            return None
        if kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in _SCALARS:
                self.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
            elif inner == _STRING:
                self.need(count * 8)
                for _ in range(count):
                    self.skip(self.number("Q"))
            else:
                # arrays of arrays: nobody writes them, and their depth would have to be bounded
                raise DataError(f"{self._name} is damaged: an array of type {inner} at byte {self.at}")
            return None
        raise DataError(f"{self._name} is damaged: a value of type {kind} at byte {self.at}")
