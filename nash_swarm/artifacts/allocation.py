"""An allocation as one `.json` file, with everything that packing needs; arrays are zlib-compressed base64."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments
from nash_swarm.errors import DataError
from nash_swarm.files.atomic import new_file
from nash_swarm.files.folders import Kind
from nash_swarm.files.named import check_kind
from nash_swarm.files.values import record, table
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import Calibration
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.quantizers.formats.base import layouts_of
from nash_swarm.quantizers.formats.known import layout_of

_FORMAT = 1
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, zlib.error)
"""What reading raises on bytes and values that are no allocation."""
_LARGEST_ARRAY = 1 << 34
_MOST_TIMES = 1032
"""What deflate makes of one byte at the most; all agents of a large model may play one width."""


def save_allocation(allocation: Allocation, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write an allocation; the file appears complete or not at all.

    Args:
        allocation: what is written.
        path: the file.
        overwrite: replace a plain file of that name.

    Raises:
        UsageError: there is a file of that name and `overwrite` is not set.
        DataError: the file cannot be written.
    """
    arguments.instance("the allocation", allocation, Allocation, "from solve or load_allocation")
    path = arguments.place("path", path)
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(allocation_values(allocation), indent=1) + "\n", encoding="utf-8")
    return Path(path)


def allocation_values(allocation: Allocation) -> dict[str, Any]:
    """The allocation as JSON values."""
    calibration = allocation.calibration
    return {
        "format": _FORMAT,
        "solver": allocation.solver,
        "hyperparameters": dict(allocation.hyperparameters),
        "budget": asdict(allocation.budget),
        "certificate": asdict(allocation.certificate),
        "strategies": list(allocation.strategies),
        "agents_by_width": allocation.histogram(),
        "provenance": dict(allocation.provenance),
        "tensors": [tensor.values() for tensor in layouts_of(allocation.tensors)],
        "choices": _encode(allocation.choices),
        "permutations": {name: _encode(order.astype("<u4")) for name, order in allocation.permutations.items()},
        "calibration": None
        if calibration is None
        else {
            "source": calibration.source,
            "shape": list(calibration.tokens.shape),
            "tokens": _encode(calibration.tokens.astype("<i4")),
        },
        "trace": [dict(record) for record in allocation.trace],
    }


def load_allocation(path: str | Path) -> Allocation:
    """Read an allocation, believing nothing.

    Raises:
        DataError: no such file, or it is damaged.
    """
    path = arguments.place("path", path)
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise DataError(f"format {values['format']!r} is not {_FORMAT}; a newer nash-swarm wrote it")
        tensors = tuple(layout_of(tensor) for tensor in values["tensors"])
        columns = {tensor.name: tensor.columns for tensor in tensors}
        text = values["calibration"]
        calibration = None
        if text is not None:
            windows, length = text["shape"]
            tokens = _decode(text["tokens"], "<i4", windows * length).reshape(windows, length)
            calibration = Calibration(tokens.astype(np.int32), str(text["source"]))
        return Allocation(
            tuple(values["strategies"]),
            _decode(values["choices"], "u1", sum(values["agents_by_width"].values())),
            record(Budget, values["budget"]),
            record(Certificate, values["certificate"]),
            str(values["solver"]),
            table(values["hyperparameters"]),
            tuple(table(entry) for entry in values["trace"]),
            tensors,
            {
                name: _decode(code, "<u4", columns[name]).astype(np.int64)
                for name, code in values["permutations"].items()
            },
            calibration,
            table(values["provenance"]),
        )
    except FileNotFoundError:
        raise DataError(f"no allocation file at {path}") from None
    except _DAMAGE as error:
        check_kind(path, Kind.ALLOCATION)
        raise DataError(f"{path} is no allocation file, or damaged: {error}") from error


def _encode(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _decode(code: str, kind: str, count: int) -> npt.NDArray[Any]:
    """The array, which must have exactly `count` entries; never inflates beyond that."""
    size = count * np.dtype(kind).itemsize
    packed = base64.b64decode(code, validate=True)
    if not 0 <= size <= min(_LARGEST_ARRAY, _MOST_TIMES * len(packed)):
        raise DataError(f"an array of {count} entries is not plausible")
    inflater = zlib.decompressobj()
    data = inflater.decompress(packed, size + 1)
    if len(data) != size:
        raise DataError(f"an array has {len(data)} bytes where {size} are due")
    return np.frombuffer(data, kind).copy()
