"""What a measuring has finished, matrix by matrix, on disk until the game is there, for the run after a killed one."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.files.arrays import read_arrays
from nash_swarm.files.atomic import short_name
from nash_swarm.quantizers.formats.base import Layout

SUFFIX = ".parts"
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, struct.error,
    zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading raises on bytes that are no piece; a damaged one is measured again."""
_SHARE_OF_DISK = 4


@dataclass(frozen=True, eq=False)
class Piece:
    """What was measured of a matrix.

    Attributes:
        damage: float32 (agents of the matrix, strategies); `None` if the text did not reach it.
        order: stored order of its columns, int64 (columns,), if it has one.
        loss: what losing the whole matrix would cost, see `Sensitivity.loss_of_all`.
    """

    damage: npt.NDArray[np.float32] | None
    order: npt.NDArray[np.int64] | None = None
    loss: float = 0.0

    def fits(self, layout: Layout, strategies: int) -> bool:
        """Whether it can be of a matrix with that layout, and so many widths."""
        if self.damage is None:
            return True
        ordered = self.order is not None and np.array_equal(np.sort(self.order), np.arange(layout.columns))
        return (
            self.damage.dtype == np.float32
            and self.damage.shape == (layout.agents, strategies)
            and (ordered if layout.ordered else self.order is None)
        )


@dataclass(frozen=True)
class Pieces:
    """Where the finished matrices of a measuring go.

    Attributes:
        out: the output; they are in a hidden folder beside it.
        largest: bytes; of a game with larger tables nothing is kept, nor of one that takes a quarter of the free disk.
    """

    out: Path
    largest: int | None = None

    def of(self, values: Any, tables: int) -> Finished | None:
        """The pieces of one measuring.

        Args:
            values: all that determines it, JSON values.
            tables: bytes of the game's tables.
        """
        with suppress(OSError):
            room = shutil.disk_usage(self.out.absolute().parent).free // _SHARE_OF_DISK
            if tables <= min(room, room if self.largest is None else self.largest):
                text = json.dumps(values, sort_keys=True, default=str)
                key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
                return Finished(self.out.parent / f".{short_name(self.out.name)}.{key}{SUFFIX}")
        return None


@dataclass(frozen=True)
class Finished:
    """The pieces of one measuring, numbered in the order in which they were finished.

    Attributes:
        folder: where they are; made with the first one.
    """

    folder: Path

    def most(self) -> int:
        """The largest number of a piece, 0 if there are none; a damaged one has its number too."""
        return max((int(file.stem) for file in self.folder.glob("*.npz") if file.stem.isdigit()), default=0)

    def read(self) -> Iterator[tuple[str, Piece, list[float]]]:
        """Names of matrices, what was measured of them, and the loss on the text if there was one."""
        for file in sorted(self.folder.glob("*.npz")):
            try:
                arrays = read_arrays(file)
                facts = json.loads(arrays.pop("facts").tobytes())
                damage, order = arrays.pop("damage", None), arrays.pop("order", None)
                order = None if order is None else order.astype(np.int64)
                piece = Piece(damage, order, float(facts["loss"]))
                name, losses = str(facts["name"]), [float(loss) for loss in facts["losses"]]
            except (*_UNREADABLE, DataError):
                continue
            yield name, piece, losses

    def keep(self, name: str, piece: Piece, losses: Sequence[float], number: int) -> None:
        """Write a piece; on a disk where that cannot be, it is not kept."""
        facts = {"name": name, "loss": piece.loss, "losses": list(losses)}
        arrays: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
        if piece.damage is not None:
            arrays["damage"] = piece.damage
        if piece.order is not None:
            arrays["order"] = piece.order.astype(np.uint32)
        file = self.folder / f"{number:06}.npz"
        waiting = file.with_suffix(".tmp")
        try:
            self.folder.mkdir(exist_ok=True)
            with waiting.open("wb") as stream:
                np.savez(stream, **arrays)
            waiting.replace(file)
        except OSError:
            with suppress(OSError):
                waiting.unlink()


def remove_pieces(folder: Path) -> None:
    """Remove a folder of pieces, and nothing but them."""
    with suppress(OSError):
        for file in folder.iterdir():
            if file.suffix in (".npz", ".tmp") and file.stem.isdigit():
                file.unlink()
        folder.rmdir()
