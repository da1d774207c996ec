"""A layout as a line of text, for example ``linear 576x1536 g64 a576x1 on``: files and custom ops both have it."""

from __future__ import annotations

from typing import cast

from nash_swarm.quantizers.formats.native.layout import Kind, TensorLayout

PATTERN = r"(linear|conv1d|embedding|tied) (\d{1,9})x(\d{1,9}) g(\d{1,6}) a(\d{1,9})x(\d{1,9}) (-|o?b?w?n?s?)"
"""Regular expression with seven groups, which `layout` takes."""
FIELDS = 7


def text(layout: TensorLayout, bias: bool = False) -> str:
    """Shape, group size, agents and flags: ordered, bias, a width per weight, normal levels, 4-bit scales."""
    flags = "o" * layout.ordered + "b" * bias + "w" * layout.per_weight
    flags = flags + "n" * (layout.levels == "normal") + "s" * (layout.scale_bits == 4) or "-"
    agents = f"a{layout.rows_per_agent}x{layout.groups_per_agent}"
    return f"{layout.kind} {layout.rows}x{layout.columns} g{layout.group_size} {agents} {flags}"


def layout(name: str, fields: tuple[str, ...]) -> tuple[TensorLayout, bool]:
    """Inverse of `text`: the layout, without its place in the game, and whether there is a bias.

    Args:
        name: of the tensor.
        fields: what `PATTERN` matched.

    Raises:
        DataError: there is no such layout.
    """
    kind, flags = fields[0], fields[6]
    rows, columns, group, agent_rows, agent_groups = map(int, fields[1:6])
    found = TensorLayout(
        name, cast(Kind, kind), rows, columns, group, agent_rows, agent_groups, per_weight="w" in flags,
        ordered="o" in flags, levels="normal" if "n" in flags else "uniform", scale_bits=4 if "s" in flags else 8,
    )  # fmt: skip
    return found, "b" in flags
