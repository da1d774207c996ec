"""A matrix whose every weight is an agent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Kind, Layout, Longs
from nash_swarm.quantizers.formats.native.layout import BLOCK_COLUMNS, TILE_ROWS

_LINE = re.compile(
    r"(linear|conv1d|embedding|tied) (\d{1,9})x(\d{1,9}) g(\d{1,6}) a(\d{1,9})x(\d{1,9}) (o?b?w)"
)  # fmt: skip


@dataclass(frozen=True)
class WeightLayout(Layout):
    """A matrix whose agents are its weights.

    Attributes:
        name, kind, rows, columns, ordered, start: see `Layout`.
        group_size: columns that share one range per row.
    """

    group_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size <= 0 or self.group_size % BLOCK_COLUMNS:
            self.refuse()

    @property
    def groups(self) -> int:
        """Quantization groups along the columns, the last one possibly shorter."""
        return -(-self.columns // self.group_size)

    @property
    def grid(self) -> tuple[int, int]:
        """See `Layout.grid`."""
        return self.rows, self.columns

    @property
    def unit(self) -> tuple[int, int]:
        """A weight."""
        return 1, 1

    def expand(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Layout.expand`."""
        if cells.shape != (self.agents,):
            raise DataError(f"{self.name}: {cells.shape} values for {self.agents} agents")
        return cells.reshape(self.grid)

    def memory(self, strategies: tuple[int, ...]) -> Longs:
        """See `Layout.memory`: the width itself, in one broadcast row."""
        return np.broadcast_to(np.array(strategies, np.int64), (self.agents, len(strategies)))

    def fixed_bytes(self, strategies: int) -> int:
        """Scale base, permutation, scales, zero-points, width codes, and the padding of each width's run of codes."""
        widths = -(-self.weights * width_code_bits(strategies) // 8)
        return 4 + self.order_bytes() + 2 * self.rows * self.groups + widths + strategies

    def text(self, bias: bool = False) -> str:
        """See `Layout.text`; for readers of the native format's lines the whole matrix is named as the cell."""
        flags = "o" * self.ordered + "b" * bias + "w"
        return f"{self.kind} {self.rows}x{self.columns} g{self.group_size} {'a{}x{}'.format(*self._whole)} {flags}"

    @classmethod
    def parse(cls, name: str, text: str) -> tuple[Self, bool]:
        """See `Layout.parse`."""
        match = _LINE.fullmatch(text)
        if match is None:
            raise DataError(f"{text!r} does not describe the layout of {name}")
        rows, columns, group_size, *whole = map(int, match.groups()[1:6])
        found = cls(name, cast(Kind, match[1]), rows, columns, group_size, ordered="o" in match[7])
        if tuple(whole) != found._whole:
            raise DataError(f"{text!r} does not describe the layout of {name}")
        return found, "b" in match[7]

    def values(self) -> dict[str, Any]:
        """See `Layout.values`."""
        rows, groups = self._whole
        return {
            "name": self.name, "kind": self.kind, "rows": self.rows, "columns": self.columns,
            "group_size": self.group_size, "rows_per_agent": rows, "groups_per_agent": groups, "per_weight": True,
            "ordered": self.ordered, "start": self.start, "levels": "uniform", "scale_bits": 8,
        }  # fmt: skip

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """See `Layout.from_values`."""
        if "per_weight" not in values:
            raise DataError(f"{cls.__name__}: the record is not one of single weights")
        return super().from_values(values)

    @property
    def _whole(self) -> tuple[int, int]:
        return -(-self.rows // TILE_ROWS) * TILE_ROWS, self.groups


def width_code_bits(strategies: int) -> int:
    """Bits of a width's code among so many strategies."""
    return max(1, (strategies - 1).bit_length())
