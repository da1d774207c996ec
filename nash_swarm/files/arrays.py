"""Arrays of an `.npz` file, none of them larger than the file makes plausible, and what identifies an array."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError

_MOST_TIMES, _BESIDE = 256, 1 << 26
"""Arrays may have this many bytes for each of the file's, and that many more: tables of like rows compress well."""
_PIECE = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of an `.npz` file by its name; nothing is unpickled.

    `numpy.load` takes memory for what an array's header says before it has seen any data, and zip archives may hold a
    thousand times their size; both are checked here first.

    Raises:
        DataError: names repeat, or sizes are not plausible or contradict each other.
        OSError, ValueError, zipfile.BadZipFile, ...: what NumPy and zipfile raise on files that are no such archive.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise DataError("an array occurs twice")
        if sum(entry.file_size for entry in entries) > _MOST_TIMES * size + _BESIDE:
            raise DataError("its arrays are too large for the file")
        arrays: dict[str, npt.NDArray[Any]] = {}
        for entry in entries:
            if entry.compress_type not in _METHODS:
                raise DataError(f"{entry.filename!r} is compressed in an unknown way")
            with archive.open(entry) as stream:
                arrays[entry.filename.removesuffix(".npy")] = _read(stream, entry.file_size)
    return arrays


def _read(stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"version {version} of the array format is unknown")
    shape, by_columns, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError("an array holds Python objects")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise DataError(f"an array of shape {shape} does not have its size")
    array = np.empty(math.prod(shape), dtype)
    left: npt.NDArray[np.uint8] = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
    # piece by piece: reading all of it at once would hold everything twice
    while piece := stream.read(min(len(left), _PIECE)):
        left[: len(piece)] = np.frombuffer(piece, np.uint8)
        left = left[len(piece) :]
    if len(left):
        raise DataError("an array is cut short")
    return array.reshape(shape, order="F" if by_columns else "C")


def array_digest(array: npt.NDArray[Any]) -> str:
    """The shape of an array and sixteen hexadecimal digits of its values."""
    return f"{array.shape} {hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()}"
