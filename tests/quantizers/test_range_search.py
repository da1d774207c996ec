"""The search for ranges of scale codes, against ranges that are tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nash_swarm.names import LEVELS, Levels
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.codebooks import NORMAL_WIDTHS, code_levels, level_tables, zero_levels
from nash_swarm.quantizers.formats.native.grid import SHRINKS, layout_base, scale_table
from nash_swarm.quantizers.formats.native.kernels import scale_ranges as kernels
from nash_swarm.quantizers.formats.native.kernels.codebook_fitting import fit_levels
from nash_swarm.quantizers.formats.native.kernels.rounding import fit_scale
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.range_search import search_ranges
from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, EVEN, PLACES, ScaleRanges, scale_offsets


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 70), st.integers(1, 5), st.sampled_from([2, 4, 5]))
def test_best_range_is_the_best_of_all(seed: int, groups: int, codes: int, even: int, coarse: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 50, (groups, codes)).astype(np.float32)
    starts, places = int(rng.integers(1, codes + 1)), int(rng.integers(1, 17))
    tried = [
        (errors[:, np.minimum(codes - 1, first + stride * np.arange(places))].min(axis=1).sum(), stride > 1, first)
        for stride in (1, coarse)
        for first in range(0, starts, even)
    ]
    _, is_coarse, first = min(tried)
    assert kernels.best_range(errors, starts, even, coarse, places) == (first, coarse if is_coarse else 1)


def least_errors(x: np.ndarray, weight: np.ndarray, width: int, levels: Levels, scales: np.ndarray) -> np.ndarray:
    """The least error with each scale and any zero-point."""
    values, zeros = code_levels(width, levels), zero_levels(width, levels)
    got = (values - zeros[:, None])[None] * scales.astype(np.float64)[:, None, None]
    nearest = np.abs(x.astype(np.float64)[None, None, :, None] - got[:, :, None, :]).min(axis=-1)
    return (weight * nearest**2).sum(axis=-1).min(axis=-1)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_errors_by_code_are_nearly_the_least_ones(levels: Levels, width: int) -> None:
    rng = np.random.default_rng(width)
    tables, ratios = level_tables(levels), []
    for shift in (0.0, 0.4, -0.3) * 4:
        x = (rng.standard_t(4, 64) + shift).astype(np.float32)
        weight = rng.lognormal(0, 0.5, 64).astype(np.float32)
        layout = cut("m", "linear", (1, 64), "tile", levels=levels)
        base = np.float32(layout_base(x[None], layout))
        table = scale_table(base)
        rows = (tables.zeros, tables.closest, tables.spread)
        code, zero, error = fit_scale(x, weight, width, base, table, 0, 1, 256, np.array(SHRINKS, np.float32), *rows)
        first, errors = max(0, code - 20), np.empty(50, np.float32)
        kernels.errors_by_code(
            x, weight, 2**width - 1, table, tables.zeros[width], tables.closest[width], code, zero, first, errors
        )
        least = least_errors(x, weight, width, levels, table[np.minimum(255, first + np.arange(50))])
        assert errors[code - first] <= error * 1.0001
        assert (errors >= least * 0.999).all()
        ratios.append(errors / least)
    assert np.median(ratios) < 1.03 and np.mean(ratios) < 1.2


@pytest.mark.parametrize("stride", [1, COARSE])
@pytest.mark.parametrize("width", NORMAL_WIDTHS[1:])
def test_a_scale_in_a_range_is_nearly_its_best_one(width: int, stride: int) -> None:
    """With one weight that counts more than the others together, which few scales hit."""
    rng = np.random.default_rng(width)
    tables, found, best = level_tables("normal"), 0.0, 0.0
    for _ in range(20):
        x, weight = rng.standard_normal(64).astype(np.float32), np.ones(64, np.float32)
        x[3], weight[3] = rng.choice([-8, 8]), 1000
        base = np.float32(layout_base(x[None], cut("m", "linear", (1, 64), "tile", levels="normal")))
        table, lowest = scale_table(base), int(rng.integers(20, 60))
        rows = (tables.zeros[width], tables.closest[width], tables.spread[width])
        code, _, error = fit_levels(x, weight, 2**width - 1, base, table, lowest, stride, PLACES, *rows)
        allowed = lowest + stride * np.arange(PLACES)
        assert code in allowed
        found += error
        best += float(least_errors(x, weight, width, "normal", table[allowed]).min())
    assert best * 0.999 <= found <= 1.1 * best


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 8])
def test_the_range_is_nearly_the_best_of_all(levels: Levels, width: int) -> None:
    """In rows with a single large weight whose input is large too, as down projections of language models have."""
    rng = np.random.default_rng(0)
    rows, columns = 12, 576
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    weight[:, 5] = rng.uniform(2, 30, rows) * rng.choice([-1, 1], rows)
    costs = np.where(np.arange(columns) == 5, 30, 1).astype(np.float32)
    layout = cut("m", "linear", weight.shape, "tile", levels=levels)
    widths = np.full((rows, layout.groups), width, np.uint8)
    base = np.float32(layout_base(weight, layout))
    table, offset, tables = scale_table(base), int(scale_offsets(levels)[width]), level_tables(levels)
    search = (np.array(SHRINKS, np.float32), tables.zeros, tables.closest, tables.spread)

    def error(row: int, lowest: int, stride: int) -> float:
        places = min(PLACES, (255 - lowest - offset) // stride + 1)
        return sum(
            fit_scale(
                weight[row, at : at + 64], costs[at : at + 64], width, base, table, lowest + offset, stride, places,
                *search,
            )[2]
            for at in range(0, columns, 64)
        )  # fmt: skip

    found = search_ranges(weight, widths, layout, float(base), costs)
    mine = sum(error(row, int(found.lowest[row]), int(found.strides[row])) for row in range(rows))
    latest = 255 - int(scale_offsets(levels).max())
    best = sum(
        min(error(row, lowest, stride) for lowest in range(0, latest + 1, EVEN) for stride in (1, COARSE))
        for row in range(rows)
    )
    assert best <= mine <= 1.05 * best


def test_rows_of_zeros_and_of_halves_have_ranges_too() -> None:
    layout = cut("m", "linear", (48, 320), "tile", levels="normal")
    widths = np.full((48, 5), HALF, np.uint8)
    widths[:32] = 4
    weight = np.zeros((48, 320), np.float32)
    weight[16:] = np.random.default_rng(0).standard_normal((32, 320))
    found = search_ranges(weight, widths, layout, layout_base(weight, layout))
    assert (found.first(widths) <= 255).all() and (found.strides == 1).all()
    ScaleRanges.holding(found.codes(np.full((48, 5), PLACES - 1, np.uint8), widths), widths, layout)


@given(st.integers(0, 10**6), st.sampled_from(LEVELS))
def test_ranges_are_such_as_files_hold(seed: int, levels: Levels) -> None:
    rng = np.random.default_rng(seed)
    layout = cut("m", "linear", (20, 200), "tile", group_size=32, levels=levels)
    spread = np.repeat(np.exp2(rng.normal(0, rng.uniform(0, 6), (20, 7))), 32, axis=1)[:, :200]
    weight = (rng.standard_normal((20, 200)) * spread).astype(np.float32)
    widths = rng.choice(np.array([2, 3, 4, 5, 6, 8, HALF], np.uint8), (20, 7))
    found = search_ranges(weight, widths, layout, layout_base(weight, layout))
    again = ScaleRanges.read(found.section(), layout.levels)
    np.testing.assert_array_equal(again.lowest, found.lowest)
    np.testing.assert_array_equal(again.strides, found.strides)
    assert (found.lowest % EVEN == 0).all() and (found.lowest >= 0).all()
    assert (found.lowest + scale_offsets(layout.levels).max() <= 255).all()
