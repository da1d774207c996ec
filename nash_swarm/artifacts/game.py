"""A game as one `.npz` file: tables, layouts, activation orders and calibration tokens; nothing pickled."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments
from nash_swarm.errors import DataError
from nash_swarm.files.arrays import read_arrays
from nash_swarm.files.atomic import new_file
from nash_swarm.files.folders import Kind
from nash_swarm.files.named import check_kind
from nash_swarm.files.values import table
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.coupling import Coupling
from nash_swarm.quantizers.formats.base import Layout, layouts_of
from nash_swarm.quantizers.formats.known import layout_of

_FORMAT = 1
_COUPLING = "coupling/"
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What NumPy and zipfile raise on bytes that are no game; RuntimeError: encrypted, or an unknown compression."""


def save_game(game: BitGame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a game; the file appears complete or not at all.

    Args:
        game: what is written.
        path: the file.
        overwrite: replace a plain file of that name.

    Raises:
        UsageError: there is a file of that name and `overwrite` is not set.
        DataError: the file cannot be written.
    """
    arguments.instance("the game", game, BitGame, "from measure or load_game")
    path = arguments.place("path", path)
    # at parameter granularity all agents have the same memory: one row is enough
    alike = game.memory.strides[0] == 0
    arrays: dict[str, Any] = {"damage": game.damage, "memory": game.memory[:1] if alike else game.memory}
    arrays |= {f"order/{name}": order.astype(np.uint32) for name, order in game.permutations.items()}
    if game.calibration is not None:
        arrays["tokens"] = game.calibration.tokens
    if game.coupling is not None:
        arrays |= {_COUPLING + name: array for name, array in game.coupling.arrays().items()}
    facts = {
        "format": _FORMAT,
        "strategies": list(game.strategies),
        "fixed_bits": game.fixed_bits,
        "parameters": game.parameters,
        "tensors": [_values(tensor) for tensor in layouts_of(game.tensors)],
        "text": None if game.calibration is None else game.calibration.source,
        "provenance": dict(game.provenance),
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return Path(path)


def load_game(path: str | Path) -> BitGame:
    """Read a game, believing nothing.

    Raises:
        DataError: no such file, or it is damaged.
    """
    path = arguments.place("path", path)
    try:
        arrays = read_arrays(Path(path))
        facts = json.loads(arrays["facts"].tobytes())
        if facts["format"] != _FORMAT:
            raise DataError(f"format {facts['format']!r} is not {_FORMAT}; a newer nash-swarm wrote it")
        damage, memory = arrays["damage"], arrays["memory"]
        orders = {
            name.removeprefix("order/"): order.astype(np.int64)
            for name, order in arrays.items()
            if name.startswith("order/")
        }
        coupling = _coupling(arrays)
        calibration = Calibration(arrays["tokens"], str(facts["text"])) if "tokens" in arrays else None
        if len(memory) == 1 < len(damage):
            memory = np.broadcast_to(memory, damage.shape)
        return BitGame(
            tuple(facts["strategies"]), damage, memory, facts["fixed_bits"], facts["parameters"],
            tuple(layout_of(tensor) for tensor in facts["tensors"]), orders, calibration,
            table(facts["provenance"]), coupling,
        )  # fmt: skip
    except FileNotFoundError:
        raise DataError(f"no game file at {path}") from None
    except _DAMAGE as error:
        check_kind(path, Kind.GAME)
        raise DataError(f"{path} is no game file, or damaged: {error}") from error


def _values(tensor: Layout) -> dict[str, Any]:
    # what is as it always was is left out
    plain = {"levels": "uniform", "scale_bits": 8}
    return {name: value for name, value in tensor.values().items() if plain.get(name) != value}


def _coupling(arrays: Mapping[str, npt.NDArray[Any]]) -> Coupling | None:
    """What couples the agents of a game file's arrays, if anything does."""
    found = {name.removeprefix(_COUPLING): array for name, array in arrays.items() if name.startswith(_COUPLING)}
    return Coupling.from_arrays(found) if found else None
