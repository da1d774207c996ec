"""What a packed matrix is, in one line of text: what a custom op is told of the bytes it gets."""

from __future__ import annotations

import re
from functools import cache

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.formats.known import LAYOUTS

_STRATEGIES = re.compile(r"\d{1,2}(?:,\d{1,2})*")


def describe(layout: Layout, strategies: tuple[int, ...]) -> str:
    """For example ``linear 576x1536 g64 a576x1 o 2,3,4 model.layers.0.mlp.down_proj``; `read` is its inverse."""
    return f"{layout.text()} {','.join(map(str, strategies))} {layout.name}"


@cache
def read(text: str) -> tuple[Layout, tuple[int, ...]]:
    """The layout, without its place in the game, and the strategies.

    Raises:
        DataError: the text is no such line.
    """
    for kind in LAYOUTS:
        words = text.split(" ", kind.words + 1)
        if len(words) == kind.words + 2 and _STRATEGIES.fullmatch(words[-2]):
            strategies = tuple(map(int, words[-2].split(",")))
            try:
                layout, _ = kind.parse(words[-1], " ".join(words[: kind.words]))
            except DataError:
                continue
            if set(strategies) <= set(layout.format.strategies):
                return layout, strategies
    raise DataError(f"{text!r} does not describe a packed matrix")
