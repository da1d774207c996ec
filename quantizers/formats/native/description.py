"""What a packed matrix is, in one line of text: what a custom op is told of the bytes it gets."""

from __future__ import annotations

import re
from functools import cache

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.native import layout_text
from nash_swarm.quantizers.formats.native.layout import SUPPORTED_WIDTHS, TensorLayout

_LINE = re.compile(layout_text.PATTERN + r" (\d{1,2}(?:,\d{1,2})*) (.*)", re.DOTALL)


def describe(layout: TensorLayout, strategies: tuple[int, ...]) -> str:
    """For example ``linear 576x1536 g64 a576x1 o 2,3,4 model.layers.0.mlp.down_proj``; `read` is its inverse."""
    return f"{layout_text.text(layout)} {','.join(map(str, strategies))} {layout.name}"


@cache
def read(text: str) -> tuple[TensorLayout, tuple[int, ...]]:
    """The layout, without its place in the game, and the strategies.

    Raises:
        DataError: the text is no such line.
    """
    match = _LINE.fullmatch(text)
    strategies = tuple(map(int, match[layout_text.FIELDS + 1].split(","))) if match else ()
    if match is None or not set(strategies) <= set(SUPPORTED_WIDTHS):
        raise DataError(f"{text!r} does not describe a packed matrix")
    return layout_text.layout(match[layout_text.FIELDS + 2], match.groups()[: layout_text.FIELDS])[0], strategies
