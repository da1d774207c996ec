"""Sections of a packed matrix: taken off the end of its bytes, and the permutation among them."""

from __future__ import annotations

import numpy as np

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Bytes, Layout, Longs


def order_section(permutation: Longs | None, layout: Layout) -> Bytes:
    """A permutation, int64 (columns,), as bytes; empty where the layout has none."""
    if not layout.ordered:
        return np.zeros(0, np.uint8)
    assert permutation is not None
    return permutation.astype(layout.order_type).view(np.uint8)


class End:
    """Takes sections off the end of a buffer, so that a reader learns the widths before what they give the size of.

    Attributes:
        left: bytes not yet taken.
    """

    def __init__(self, buffer: Bytes, layout: Layout) -> None:
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or not buffer.flags.c_contiguous:
            raise DataError(f"{layout.name}: a packed tensor is one contiguous run of bytes")
        self._buffer, self._layout, self.left = buffer, layout, len(buffer)

    def take(self, count: int) -> Bytes:
        """A copy of the last `count` bytes.

        Raises:
            DataError: there are not so many.
        """
        if count > self.left:
            raise DataError(f"{self._layout.name}: the packed tensor is cut short ({len(self._buffer)} bytes)")
        self.left -= count
        return self._buffer[self.left : self.left + count].copy()

    def order(self) -> Longs:
        """The permutation, int64 (columns,); the model's order where the layout has none.

        Raises:
            DataError: it is none.
        """
        plain = np.arange(self._layout.columns)
        if not self._layout.ordered:
            return plain
        permutation = self.take(self._layout.order_bytes()).view(self._layout.order_type).astype(np.int64)
        if not np.array_equal(np.sort(permutation), plain):
            raise DataError(f"{self._layout.name}: the column order is no permutation")
        return permutation
