"""Windows of scale codes: what four bits a group can say, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from support.layouts import Case, cases

from nash_swarm.errors import DataError
from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.grid import row_widths
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, PLACES, ScaleRanges, pack_places, unpack_places
from nash_swarm.quantizers.rounding.rtn import RoundToNearest

LAYOUT = cut("m", "linear", (48, 320), "tile", levels="normal")


@given(cases(per_weight=False))
def test_a_range_that_holds_codes_gives_them_back(case: Case) -> None:
    layout = replace(case.layout, scale_bits=4)
    if case.layout.scale_bits == 8:
        return  # these codes are anywhere
    widths = row_widths(layout.expand(case.agent_widths), layout)
    codes = case.rounded.scale_codes
    ranges = ScaleRanges.holding(codes, widths, layout)
    again = ScaleRanges.read(ranges.section(), layout.levels)
    np.testing.assert_array_equal(again.lowest, ranges.lowest)
    np.testing.assert_array_equal(again.strides, ranges.strides)
    places = ranges.placed(codes, widths)
    assert (places < PLACES).all()
    counted = widths != HALF
    np.testing.assert_array_equal(again.codes(places, widths)[counted], codes[counted])


@given(cases(per_weight=False))
def test_four_bits_take_half_of_eight_and_a_byte_a_row(case: Case) -> None:
    narrow, wide = replace(case.layout, scale_bits=4), replace(case.layout, scale_bits=8)
    saved = wide.memory((3,)).sum() // 8 - narrow.memory((3,)).sum() // 8
    assert saved == narrow.row_tiles * narrow.groups * 8
    assert narrow.fixed_bytes(1) - wide.fixed_bytes(1) == narrow.rows


def test_half_bytes_hold_two_rows() -> None:
    places = np.random.default_rng(0).integers(0, PLACES, (3, 5, 16)).astype(np.uint8)
    section = pack_places(places)
    assert section.shape == (3, 5, 8)
    assert section[1, 2, 3] == places[1, 2, 6] + 16 * places[1, 2, 7]
    np.testing.assert_array_equal(unpack_places(section), places)


def test_codes_of_no_range_are_refused() -> None:
    widths = np.full((48, 5), 3, np.uint8)
    codes = np.full((48, 5), 101, np.uint8)
    codes[7, 2] = 118
    with pytest.raises(DataError, match="m: the scale codes of a row do not fit a range of 16"):
        ScaleRanges.holding(codes, widths, LAYOUT)
    codes[7, 2] = 121  # five coarse steps
    assert ScaleRanges.holding(codes, widths, LAYOUT).strides[7] == COARSE
    codes[7, 2] = 20  # no range of three bits begins so early
    with pytest.raises(DataError, match="do not fit a range"):
        ScaleRanges.holding(codes, widths, LAYOUT)


def error(weight: np.ndarray, widths: np.ndarray, levels: Levels, scale_bits: int) -> float:
    layout = replace(cut("m", "linear", weight.shape, "tile", levels=levels), scale_bits=scale_bits)
    rounded = RoundToNearest().round(weight, layout.expand(widths), layout)
    packed = layout.format.pack(rounded, widths, layout, None, (2, 3, 4, 5, 6, 8))
    return float(np.square(packed.dequantize() - weight).sum())


@pytest.mark.parametrize("levels", get_args(Levels))
@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 8, None])
def test_ranges_cost_hardly_any_error(levels: Levels, width: int | None) -> None:
    """Groups of one row differ by a fifth of an octave here, as those of language models do."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 640)) * np.exp2(rng.normal(0, 0.5, (64, 1)))
    weight = (weight * np.repeat(np.exp2(rng.normal(0, 0.2, (64, 10))), 64, axis=1)).astype(np.float32)
    agents = 4 * 10
    widths = rng.choice([2, 3, 4, 5], agents) if width is None else np.full(agents, width)
    eight, four = (error(weight, widths.astype(np.uint8), levels, bits) for bits in (8, 4))
    assert four < 1.04 * eight


@pytest.mark.parametrize(("width", "most"), [(2, 1.02), (3, 1.04), (4, 1.1)])
def test_rows_of_very_different_groups_lose_little(width: int, most: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 640)).astype(np.float32)
    weight[:, 64:256] *= 0.2
    agents = np.full(4 * 10, width, np.uint8)
    assert error(weight, agents, "normal", 4) < most * error(weight, agents, "normal", 8)
