"""Random layouts and matrices rounded to them, for hypothesis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from nash_swarm.names import GRANULARITIES, LEVELS
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native import grid
from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.formats.native.layout import SUPPORTED_WIDTHS, TensorLayout
from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, PLACES, ScaleRanges, scale_offsets
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout


class Case(NamedTuple):
    layout: TensorLayout
    strategies: tuple[int, ...]
    agent_widths: npt.NDArray[np.uint8]
    rounded: Rounded
    permutation: npt.NDArray[np.int64] | None


@st.composite
def layouts(draw: st.DrawFn, *, per_weight: bool | None = None, most: int = 150) -> TensorLayout:
    granularities = GRANULARITIES if per_weight is None else ("parameter",) if per_weight else GRANULARITIES[:3]
    granularity = draw(st.sampled_from(granularities))
    layout = cut(
        "m",
        draw(st.sampled_from(["linear", "conv1d", "embedding", "tied"])),
        (draw(st.integers(1, most)), draw(st.integers(1, most))),
        granularity,
        group_size=draw(st.sampled_from([32, 64, 128])),
        ordered=draw(st.booleans()),
        start=draw(st.integers(0, 5)),
        levels="uniform" if granularity == "parameter" else draw(st.sampled_from(LEVELS)),
    )
    if isinstance(layout, WeightLayout):
        return layout
    return replace(layout, scale_bits=draw(st.sampled_from([8, layout.scale_bits])))


@st.composite
def cases(draw: st.DrawFn, *, per_weight: bool | None = None, most: int = 150) -> Case:
    """A layout, widths for its agents, and arbitrary codes, zero-points and scales that fit those widths."""
    layout = draw(layouts(per_weight=per_weight, most=most))
    known = [bits for bits in SUPPORTED_WIDTHS if bits <= 8 or not isinstance(layout, WeightLayout)]
    strategies = tuple(sorted(draw(st.sets(st.sampled_from(known), min_size=1))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    agent_widths = rng.choice(np.array(strategies, np.uint8), layout.agents)
    permutation = rng.permutation(layout.columns) if layout.ordered else None
    extreme = draw(st.booleans())
    return Case(layout, strategies, agent_widths, rounded(rng, layout, agent_widths, extreme), permutation)


def rounded(
    rng: np.random.Generator, layout: TensorLayout, agent_widths: npt.NDArray[np.uint8], extreme: bool = False
) -> Rounded:
    """Codes and zero-points that fit the widths; with `extreme`, only the smallest and the largest."""
    shape = (layout.rows, layout.columns)
    widths = by_weight(layout, agent_widths)
    group = np.arange(layout.columns) // layout.group_size
    narrowest = np.where(widths == 16, 8, widths)
    by_group = np.full((layout.rows, layout.groups), 8)
    if not isinstance(layout, WeightLayout):
        for g in range(layout.groups):
            by_group[:, g] = narrowest[:, group == g].min(axis=1)
    draw = _ends if extreme else _uniform
    codes = np.where(widths == 16, 0, draw(rng, 2.0**narrowest))
    zeros = draw(rng, 2.0**by_group)
    if not isinstance(layout, WeightLayout):
        zeros = np.where(
            np.stack([(widths[:, group == g] == 16).any(axis=1) for g in range(layout.groups)], 1), 0, zeros
        )
    halves = np.where(widths == 16, rng.standard_normal(shape), 0).astype(np.float16)
    return Rounded(
        codes.astype(np.uint8),
        _scale_codes(rng, layout, agent_widths),
        zeros.astype(np.uint8),
        float(np.float32(rng.uniform(0.1, 2))),
        halves if (widths == 16).any() else None,
    )


def _scale_codes(
    rng: np.random.Generator, layout: TensorLayout, agent_widths: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    shape = (layout.rows, layout.groups)
    if isinstance(layout, WeightLayout) or layout.scale_bits == 8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    last = 255 - scale_offsets(layout.levels).max() - COARSE * (PLACES - 1)
    ranges = ScaleRanges.read(rng.integers(0, last, layout.rows).astype(np.uint8), layout.levels)
    places = rng.integers(0, PLACES, shape).astype(np.uint8)
    return ranges.codes(places, grid.row_widths(layout.expand(agent_widths), layout))


def by_weight(layout: TensorLayout, agent_widths: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The width of every single weight, (rows, columns), by plain counting of rows and groups."""
    out = np.empty((layout.rows, layout.columns), np.uint8)
    across = layout.columns if isinstance(layout, WeightLayout) else -(-layout.groups // layout.groups_per_agent)
    for n in range(layout.rows):
        for k in range(layout.columns):
            if isinstance(layout, WeightLayout):
                agent = n * across + k
            else:
                agent = n // layout.rows_per_agent * across + k // (layout.group_size * layout.groups_per_agent)
            out[n, k] = agent_widths[agent]
    return out


def _uniform(rng: np.random.Generator, limit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return rng.integers(0, limit.astype(np.int64))


def _ends(rng: np.random.Generator, limit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(rng.random(limit.shape) < 0.5, 0, limit - 1)
