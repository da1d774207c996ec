"""A packed matrix's layout in one line of text: what a custom op is told of the bytes it gets."""

from __future__ import annotations

import re
from functools import cache
from typing import cast

from nash_swarm.errors import DataError
from nash_swarm.game.layout import SUPPORTED_WIDTHS, Kind, TensorLayout

_LINE = re.compile(
    r"(linear|conv1d|embedding|tied) (\d{1,9})x(\d{1,9}) g(\d{1,6}) a(\d{1,9})x(\d{1,9}) "
    r"(-|o?w?n?s?) (\d{1,2}(?:,\d{1,2})*) (.*)",
    re.DOTALL,
)


def describe(layout: TensorLayout, strategies: tuple[int, ...]) -> str:
    """For example ``linear 576x1536 g64 a576x1 o 2,3,4 model.layers.0.mlp.down_proj``; `read` is its inverse."""
    flags = "o" * layout.ordered + "w" * layout.per_weight + "n" * (layout.levels == "normal")
    flags = flags + "s" * (layout.scale_bits == 4) or "-"
    widths = ",".join(map(str, strategies))
    return (
        f"{layout.kind} {layout.rows}x{layout.columns} g{layout.group_size} "
        f"a{layout.rows_per_agent}x{layout.groups_per_agent} {flags} {widths} {layout.name}"
    )


@cache
def read(text: str) -> tuple[TensorLayout, tuple[int, ...]]:
    """The layout, without its place in the game, and the strategies.

    Raises:
        DataError: the text is no such line.
    """
    match = _LINE.fullmatch(text)
    strategies = tuple(map(int, match[8].split(","))) if match else ()
    if match is None or not set(strategies) <= set(SUPPORTED_WIDTHS):
        raise DataError(f"{text!r} does not describe a packed matrix")
    rows, columns, group, agent_rows, agent_groups = (int(match[i]) for i in range(2, 7))
    layout = TensorLayout(
        match[9], cast(Kind, match[1]), rows, columns, group, agent_rows, agent_groups,
        per_weight="w" in match[7], ordered="o" in match[7], levels="normal" if "n" in match[7] else "uniform",
        scale_bits=4 if "s" in match[7] else 8,
    )  # fmt: skip
    return layout, strategies
