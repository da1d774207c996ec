"""The formats that are there: which one a user's choices ask for, and which one a line or record in a file is of."""

from __future__ import annotations

from typing import Any

from nash_swarm import arguments
from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.values import table
from nash_swarm.names import GRANULARITIES, Granularity, Levels
from nash_swarm.quantizers.formats.base import Format, Kind, Layout
from nash_swarm.quantizers.formats.native.format import N16K32
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.formats.per_weight.format import PerWeight
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout

LAYOUTS: list[type[Layout]] = [TensorLayout, WeightLayout]
"""Kinds of layouts that files may name."""


def register(layout: type[Layout]) -> None:
    """Let the lines and records of files be of this kind of layout too; they match those of no other."""
    if layout not in LAYOUTS:
        LAYOUTS.append(layout)


def format_for(granularity: str, levels: str, group_size: int) -> Format[Any]:
    """The format of a user's choices.

    Raises:
        UsageError: unknown granularity or levels, levels other than even ones at `parameter` granularity, or a
            group size that is no positive multiple of 32.
    """
    if granularity not in GRANULARITIES:
        raise UsageError(f"unknown granularity {granularity!r}; choose one of {', '.join(GRANULARITIES)}")
    native = N16K32(group_size, levels)  # type: ignore[arg-type]
    if granularity != "parameter":
        return native
    if levels != "uniform":
        raise UsageError("at parameter granularity levels are uniform: weights of one scale have many widths")
    return PerWeight(group_size)


def cut(
    name: str, kind: Kind, shape: tuple[int, int], granularity: Granularity, *, group_size: int = 64,
    ordered: bool = False, start: int = 0, levels: Levels = "uniform",
) -> Any:  # fmt: skip
    """The cells of a matrix of `shape` (rows, columns) in the format of these choices, see `Layout`.

    Raises:
        UsageError: see `format_for`.
    """
    return format_for(granularity, levels, group_size).cut(name, kind, shape, granularity, ordered=ordered, start=start)


def strategies_at(granularity: str) -> tuple[int, ...]:
    """Bit-widths that cells of this granularity may have, ascending."""
    return (PerWeight if granularity == "parameter" else N16K32).strategies


def check_strategies(
    strategies: tuple[int, ...], granularity: str, format: Format[Any] | None = None
) -> tuple[int, ...]:
    """The strategies in ascending order; `format` is the one of the granularity if it is None.

    Raises:
        UsageError: empty, or a width that the format does not hold at this granularity.
    """
    strategies = arguments.widths("strategies", strategies)
    known = list(strategies_at(granularity) if format is None else format.strategies)
    wrong = [bits for bits in strategies if bits not in known]
    if wrong or not strategies:
        raise UsageError(f"strategies must be bit-widths out of {known} at {granularity} granularity, not {wrong}")
    return tuple(sorted(set(strategies)))


def parse_layout(name: str, text: str) -> tuple[Layout, bool]:
    """The layout, without its place in the game, of a line from `Layout.text`, and whether there is a bias.

    Raises:
        DataError: the text is no such line, or there is no such layout.
    """
    for kind in LAYOUTS:
        try:
            return kind.parse(name, text)
        except DataError:
            continue
    raise DataError(f"{text!r} does not describe the layout of {name}")


def layout_of(values: Any) -> Layout:
    """The layout of a record from `Layout.values`.

    Raises:
        DataError: the values are of no layout.
    """
    values, reasons = table(values), []
    for kind in LAYOUTS:
        try:
            return kind.from_values(values)
        except DataError as error:
            reasons.append(str(error))
    raise DataError("; ".join(reasons))
