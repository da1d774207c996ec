"""Single weights as a format: evenly spaced levels on one range per row and group, any number of them a weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from nash_swarm.errors import UsageError
from nash_swarm.names import Granularity
from nash_swarm.quantizers.formats.base import Bytes, Floats, Format, Grid, Kind, Longs, Share, alone
from nash_swarm.quantizers.formats.native.format import check_group_size
from nash_swarm.quantizers.formats.native.grid import Rounded, scale_base, scale_table
from nash_swarm.quantizers.formats.native.layout import HALF, SUPPORTED_WIDTHS
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout
from nash_swarm.quantizers.formats.per_weight.tensor import PackedWeights

_STEPS = 255
"""Steps of a group's range."""


@dataclass(frozen=True)
class PerWeight(Format[WeightLayout]):
    """A width for every weight; the reference path alone reads it.

    Attributes:
        group_size: columns that share one range per row, a multiple of 32.
    """

    name: ClassVar[str] = "per-weight"
    strategies: ClassVar[tuple[int, ...]] = tuple(bits for bits in SUPPORTED_WIDTHS if bits != HALF)
    permutes: ClassVar[bool] = True
    layout: ClassVar[type[WeightLayout]] = WeightLayout

    group_size: int = 64

    def __post_init__(self) -> None:
        check_group_size(self.group_size)

    def cut(
        self, name: str, kind: Kind, shape: tuple[int, int], granularity: Granularity, *, ordered: bool = False,
        start: int = 0,
    ) -> WeightLayout:  # fmt: skip
        """See `Format.cut`."""
        if granularity != "parameter":
            raise UsageError(f"format {self.name} has no cells of granularity {granularity!r}")
        return WeightLayout(name, kind, *shape, self.group_size, ordered=ordered, start=start)

    def errors(
        self, weight: Floats, rows: Floats, columns: Floats, layout: WeightLayout, strategies: tuple[int, ...],
        share: Share = alone,
    ) -> Floats:  # fmt: skip
        """See `Format.errors`."""
        from nash_swarm.quantizers.formats.per_weight import kernels

        base = scale_base(weight, _STEPS)
        out = np.empty((layout.rows, layout.columns, len(strategies)), np.float32)
        kernel = partial(
            kernels.weight_damage, weight, rows, columns, layout.group_size, np.array(strategies, np.int64),
            np.float32(base), scale_table(base), out,
        )  # fmt: skip
        share(layout.rows, kernel)
        return out.reshape(layout.agents, len(strategies))

    def grid(
        self, weight: Floats, widths: Bytes, layout: WeightLayout, costs: Floats, shrinks: tuple[float, ...],
        share: Share = alone,
    ) -> Grid:  # fmt: skip
        """See `Format.grid`; ranges hold all weights of their group, whatever the costs and shrinks."""
        return WeightGrid(weight, widths, layout, share)

    def pack(
        self, rounded: Rounded, agent_widths: Bytes, layout: WeightLayout, permutation: Longs | None,
        strategies: tuple[int, ...],
    ) -> PackedWeights:  # fmt: skip
        """See `Format.pack`."""
        return PackedWeights.pack(rounded, agent_widths, layout, permutation, strategies)

    def read(self, buffer: Bytes, layout: WeightLayout, strategies: tuple[int, ...]) -> PackedWeights:
        """See `Format.read`."""
        return PackedWeights.read(buffer, layout, strategies)


class WeightGrid(Grid):
    """Ranges and codes as they are found."""

    def __init__(self, weight: Floats, widths: Bytes, layout: WeightLayout, share: Share) -> None:
        self.group_size, self._widths, self._share = layout.group_size, widths, share
        self._base = scale_base(weight, _STEPS)
        self._table = scale_table(self._base)
        self._codes = np.zeros((layout.rows, layout.columns), np.uint8)
        self._scale_codes, self._zeros = np.zeros((2, layout.rows, layout.groups), np.uint8)

    def round_group(self, work: Floats, start: int, stop: int, factor: Floats | None, errors: Floats) -> None:
        """See `Grid.round_group`."""
        from nash_swarm.quantizers.formats.per_weight import kernels

        upper = np.ones((1, 1), np.float32) if factor is None else factor
        kernel = partial(
            kernels.round_group, work, start, stop, upper, self._widths, np.float32(self._base), self._table,
            factor is not None, self._codes, self._scale_codes, self._zeros, start // self.group_size, errors,
        )  # fmt: skip
        self._share(len(work), kernel)

    def rounded(self, work: Floats) -> Rounded:
        """See `Grid.rounded`."""
        return Rounded(self._codes, self._scale_codes, self._zeros, self._base)
