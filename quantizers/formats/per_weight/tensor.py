"""One matrix of single weights, packed: `codes | zero-points | scales | permutation | widths | base`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Bytes, Floats, Longs, Packed
from nash_swarm.quantizers.formats.native.bitstream import read_bits, stream_bytes, write_bits
from nash_swarm.quantizers.formats.native.grid import LARGEST_BASE, Rounded, scale_table
from nash_swarm.quantizers.formats.per_weight import stream
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout, width_code_bits
from nash_swarm.quantizers.formats.sections import End, order_section


@dataclass(frozen=True, eq=False)
class PackedWeights(Packed):
    """A packed matrix with a width for every weight.

    Attributes:
        layout, buffer, widths, permutation: see `Packed`.
        code_bytes: length of the leading section.
        zeros, scale_codes: uint8 (rows, groups).
        base: the tensor's largest scale.
    """

    layout: WeightLayout
    buffer: Bytes
    code_bytes: int
    widths: Bytes
    zeros: Bytes
    scale_codes: Bytes
    base: float
    permutation: Longs

    @classmethod
    def pack(
        cls, rounded: Rounded, agent_widths: Bytes, layout: WeightLayout, permutation: Longs | None,
        strategies: tuple[int, ...],
    ) -> PackedWeights:  # fmt: skip
        """See `Format.pack`."""
        index = np.searchsorted(np.array(strategies), agent_widths)
        sections = [
            stream.pack_codes(rounded.codes, layout.expand(agent_widths)), rounded.zeros.ravel(),
            rounded.scale_codes.ravel(), order_section(permutation, layout),
            write_bits(index, width_code_bits(len(strategies))), np.array([rounded.base], np.float32).view(np.uint8),
        ]  # fmt: skip
        return cls.read(np.concatenate(sections), layout, strategies)

    @classmethod
    def read(cls, buffer: Bytes, layout: WeightLayout, strategies: tuple[int, ...]) -> PackedWeights:
        """See `Format.read`."""
        layout.check(strategies)  # kernels have tables of these widths alone
        end = End(buffer, layout)
        # before arrays of the layout's size are made
        if len(buffer) * 8 < layout.weights:
            raise DataError(f"{layout.name}: {len(buffer)} bytes cannot hold {layout.weights} weights; cut short")
        base = float(end.take(4).view("<f4")[0])
        if not 0 < base <= LARGEST_BASE:
            raise DataError(f"{layout.name}: the scale base {base} is not a plausible number")
        bits, count = width_code_bits(len(strategies)), layout.agents
        index = read_bits(end.take(stream_bytes(count, bits)), count, bits)
        if index.max() >= len(strategies):
            raise DataError(f"{layout.name}: a width code is out of range")
        widths = layout.expand(np.array(strategies, np.uint8)[index])
        permutation = end.order()
        shape = (layout.rows, layout.groups)
        scale_codes = end.take(shape[0] * shape[1]).reshape(shape)
        zeros = end.take(shape[0] * shape[1]).reshape(shape)
        expected = stream.code_bytes(widths)
        if end.left != expected:
            raise DataError(f"{layout.name}: {end.left} bytes of codes where the widths ask for {expected}")
        return cls(layout, buffer, expected, widths, zeros, scale_codes, base, permutation)

    @cached_property
    def scales(self) -> Floats:
        """Scales, float32 (rows, groups)."""
        return scale_table(self.base)[self.scale_codes]

    @cached_property
    def row_bits(self) -> Longs:
        """First bit of each row's codes of each width, int64 (rows, 9)."""
        from nash_swarm.quantizers.formats.per_weight import reading

        return reading.row_bits(self.widths)

    def dequantize(self) -> Floats:
        """See `Packed.dequantize`."""
        codes = stream.unpack_codes(self.buffer[: self.code_bytes], self.widths)
        stored = stream.dequantize(codes, self.widths, self.scale_codes, self.zeros, self.base, self.layout.group_size)
        matrix = np.empty_like(stored)
        matrix[:, self.permutation] = stored
        return matrix

    def read_rows(self, wanted: Longs, out: Floats, first: int, past: int) -> None:
        """See `Packed.read_rows`."""
        from nash_swarm.quantizers.formats.per_weight import reading

        reading.dequantize_rows(
            self.buffer, self.row_bits, self.widths, self.scales, self.zeros, self.permutation, self.layout.group_size,
            wanted, out, first, past,
        )  # fmt: skip
