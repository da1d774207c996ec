"""One packed matrix: a byte buffer and the layout it is read by.

The buffer is `codes | zero-points | scales | ranges | permutation | widths | base`. All but the first two have sizes
that follow from the layout, so a reader starts at the end, learns the widths, and from them the sizes of the rest; a
buffer whose length does not match to the byte is refused before anything reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Packed
from nash_swarm.quantizers.formats.native import grid, n16k32
from nash_swarm.quantizers.formats.native.bitstream import read_bits, stream_bytes, write_bits
from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.formats.native.layout import HALF, SUPPORTED_WIDTHS, TILE_ROWS, TensorLayout
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges, pack_places, unpack_places
from nash_swarm.quantizers.formats.sections import End, order_section


@dataclass(frozen=True, eq=False)
class PackedTensor(Packed):
    """A packed matrix, its sections checked against the buffer's size and copied out where kernels need them aligned.

    Attributes:
        layout: shape and agent grid.
        buffer: the bytes on disk, uint8 (bytes,).
        code_bytes: length of the leading section.
        widths: uint8 (row_tiles, groups).
        zeros: uint8 (row_tiles * 16, groups), padded rows included.
        places: of the scales' codes in their rows' ranges, uint8, same shape as `zeros`.
        ranges: of all rows, padded ones included.
        base: the tensor's largest scale.
        permutation: int64 (columns,), stored column k is the matrix's column `permutation[k]`.
    """

    layout: TensorLayout
    buffer: npt.NDArray[np.uint8]
    code_bytes: int
    widths: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    places: npt.NDArray[np.uint8]
    ranges: ScaleRanges
    base: float
    permutation: npt.NDArray[np.int64]

    @classmethod
    def pack(
        cls,
        rounded: Rounded,
        agent_widths: npt.NDArray[np.uint8],
        layout: TensorLayout,
        permutation: npt.NDArray[np.int64] | None,
        strategies: tuple[int, ...],
    ) -> PackedTensor:
        """Pack a rounded matrix; `agent_widths` is uint8 (agents,), the width of each agent in bits."""
        widths = layout.expand(agent_widths)
        codes = n16k32.pack_codes(rounded.codes, rounded.halves, widths, layout)
        tail = [_pack_zeros(_tiles(rounded.zeros, layout), widths), *_pack_scales(rounded, widths, layout)]
        width_section = write_bits(np.searchsorted(np.array(SUPPORTED_WIDTHS), agent_widths), 4)
        order = order_section(permutation, layout)
        base = np.array([rounded.base], np.float32).view(np.uint8)
        sections = [codes, *(part.ravel() for part in tail), order, width_section, base]
        return cls.read(np.concatenate(sections), layout, strategies)

    @classmethod
    def read(cls, buffer: npt.NDArray[np.uint8], layout: TensorLayout, strategies: tuple[int, ...]) -> PackedTensor:
        """Parse a buffer.

        Raises:
            DataError: the buffer is not what the layout says, to the byte.
        """
        end = End(buffer, layout)
        # before arrays of the layout's size are made
        if len(buffer) * 8 < layout.weights:
            raise DataError(f"{layout.name}: {len(buffer)} bytes cannot hold {layout.weights} weights; cut short")
        base = float(end.take(4).view("<f4")[0])
        if not 0 < base <= grid.LARGEST_BASE:
            raise DataError(f"{layout.name}: the scale base {base} is not a plausible number")
        count = layout.agents
        known = np.array(SUPPORTED_WIDTHS, np.uint8)
        index = read_bits(end.take(stream_bytes(count, 4)), count, 4)
        if index.max() >= len(known):
            raise DataError(f"{layout.name}: a width code is out of range")
        widths = layout.expand(known[index])
        permutation = end.order()
        places, ranges = _unpack_scales(end, layout)
        zeros = _untile(_unpack_zeros(end.take(int(_zero_bytes(widths).sum())), widths))
        expected = n16k32.group_offsets(widths, layout)[1]
        if end.left != expected:
            raise DataError(f"{layout.name}: {end.left} bytes of codes where the widths ask for {expected}")
        return cls(layout, buffer, expected, widths, zeros, places, ranges, base, permutation)

    @cached_property
    def scale_codes(self) -> npt.NDArray[np.uint8]:
        """Scale codes, uint8, same shape as `zeros`."""
        if self.layout.scale_bits == 8:
            return self.places
        return self.ranges.codes(self.places, grid.row_widths(self.widths, self.layout, padded=True))

    @cached_property
    def scales(self) -> npt.NDArray[np.float32]:
        """Scales, float32, same shape as `scale_codes`."""
        return grid.scale_table(self.base)[self.scale_codes]

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """First byte of each group of each tile, int64 (row_tiles, groups)."""
        return n16k32.group_offsets(self.widths, self.layout)[0]

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The matrix (rows, columns), columns in the model's order: the NumPy reference of every kernel."""
        layout = self.layout
        stream = self.buffer[: self.code_bytes]
        codes, halves = n16k32.unpack_codes(stream, self.widths, layout)
        rows = slice(0, layout.rows)
        by_row = grid.row_widths(self.widths, layout)
        stored = grid.dequantize(codes, self.scale_codes[rows], self.zeros[rows], self.base, by_row, layout)
        half = np.repeat(by_row == HALF, layout.group_size, axis=1)
        stored = np.where(half[:, : layout.columns], halves.astype(np.float32), stored)
        matrix = np.empty_like(stored)
        matrix[:, self.permutation] = stored
        return matrix


def _tiles(values: npt.NDArray[np.uint8], layout: TensorLayout) -> npt.NDArray[np.uint8]:
    """(rows, groups) to (row_tiles, groups, 16)."""
    padded = np.zeros((layout.row_tiles * TILE_ROWS, layout.groups), np.uint8)
    padded[: layout.rows] = values
    return padded.reshape(layout.row_tiles, TILE_ROWS, layout.groups).transpose(0, 2, 1)


def _untile(tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(row_tiles, groups, 16) to (row_tiles * 16, groups)."""
    return np.ascontiguousarray(tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1]))


def _pack_scales(rounded: Rounded, widths: npt.NDArray[np.uint8], layout: TensorLayout) -> list[npt.NDArray[np.uint8]]:
    if layout.scale_bits == 8:
        return [_tiles(rounded.scale_codes, layout)]
    by_row = grid.row_widths(widths, layout)
    ranges = ScaleRanges.holding(rounded.scale_codes, by_row, layout)
    places = ranges.placed(rounded.scale_codes, by_row)
    return [pack_places(_tiles(places, layout)), ranges.section()]


def _unpack_scales(end: End, layout: TensorLayout) -> tuple[npt.NDArray[np.uint8], ScaleRanges]:
    """Places (row_tiles * 16, groups) and the ranges that they are places of."""
    tiles = (layout.row_tiles, layout.groups)
    if layout.scale_bits == 8:
        codes = _untile(end.take(tiles[0] * tiles[1] * TILE_ROWS).reshape(*tiles, TILE_ROWS))
        return codes, ScaleRanges.anywhere(len(codes))
    section = np.zeros(layout.row_tiles * TILE_ROWS, np.uint8)
    section[: layout.rows] = end.take(layout.rows)
    places = _untile(unpack_places(end.take(tiles[0] * tiles[1] * TILE_ROWS // 2).reshape(*tiles, TILE_ROWS // 2)))
    return places, ScaleRanges.read(section, layout.levels)


def _zero_bytes(widths: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return np.where(widths == HALF, 0, widths.astype(np.int64) * TILE_ROWS // 8)


def _pack_zeros(zeros: npt.NDArray[np.uint8], widths: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Zero-points (row_tiles, groups, 16), `width` bits each, one run per width, narrowest first."""
    runs = [write_bits(zeros[widths == bits], bits) for bits in SUPPORTED_WIDTHS if bits != HALF]
    return np.concatenate(runs)


def _unpack_zeros(stream: npt.NDArray[np.uint8], widths: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    zeros = np.zeros((*widths.shape, TILE_ROWS), np.uint8)
    at = 0
    for bits in SUPPORTED_WIDTHS:
        chosen = widths == bits
        if bits == HALF or not chosen.any():
            continue
        count = int(chosen.sum()) * TILE_ROWS
        zeros[chosen] = read_bits(stream[at:], count, bits).reshape(-1, TILE_ROWS)
        at += stream_bytes(count, bits)
    return zeros
