"""What a format makes of one matrix: the grid it is rounded onto, and the packed bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]

Share = Callable[[int, Callable[[int, int], Any]], None]
"""Shares rows `0:n` out to threads: `share(n, work)` calls `work(first, past)` until all rows are done."""


def alone(rows: int, work: Callable[[int, int], Any]) -> None:
    """The `Share` of one thread."""
    work(0, rows)


class Grid(ABC):
    """The grid of one matrix while it is rounded, group after group of columns.

    Attributes:
        group_size: columns that are rounded together.
    """

    group_size: int

    @abstractmethod
    def round_group(self, work: Floats, start: int, stop: int, factor: Floats | None, errors: Floats) -> None:
        """Round columns `start:stop` of `work`, float32 (rows, columns), in place.

        Args:
            work: the matrix; holds the rounded weights afterwards.
            start, stop: the group.
            factor: upper Cholesky factor of the inverse Hessian, float32 (columns, columns): each column's error is
                passed on to the group's later ones. None for plain rounding.
            errors: float32 (rows, stop - start), zero; with a factor, what the columns after the group have to take up,
                divided by the factor's diagonal.
        """

    @abstractmethod
    def rounded(self, work: Floats) -> Any:
        """What `Format.pack` takes, once every group has been rounded in `work`.

        Raises:
            DataError: a weight cannot be stored.
        """


class Packed(ABC):
    """A packed matrix, checked to the byte.

    Attributes:
        layout: shape and cells.
        buffer: the bytes on disk, uint8 (bytes,).
        widths: uint8, one for each of the layout's `units`.
        permutation: int64 (columns,), stored column k is the matrix's column `permutation[k]`.
    """

    buffer: Bytes
    widths: Bytes
    permutation: Longs

    @abstractmethod
    def dequantize(self) -> Floats:
        """The matrix, float32 (rows, columns), columns in the model's order: the reference of every kernel."""

    def read_rows(self, wanted: Longs, out: Floats, first: int, past: int) -> None:
        """Rows `wanted[first:past]` into those of `out`, float32 (wanted, columns), columns in the model's order."""
        out[first:past] = self.dequantize()[wanted[first:past]]
