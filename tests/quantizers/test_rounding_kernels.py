from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rounding as twin

from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import SHRINKS, scale_base, scale_table
from nash_swarm.quantizers.formats.native.kernels import rounding
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges
from nash_swarm.quantizers.formats.per_weight import kernels as per_weight

EVEN = tuple(getattr(level_tables("uniform"), name) for name in ("codes", "zeros", "nearest", "closest", "spread"))
BASE = np.float32(2)
SEARCH = np.array(SHRINKS, np.float32)
POWERS = np.exp2(1 - np.arange(256) // 16).astype(np.float32)
"""Scales that are powers of two: with small integer weights and factors every float32 operation is exact, so that
kernels and twins must agree to the last bit, ties included, in whatever order the compiler sums."""


def exact_rows(seed: int, rows: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows_of_kind = [
        rng.integers(-60, 61, columns),
        np.abs(rng.integers(-60, 61, columns)),
        np.zeros(columns),
        np.full(columns, -3),
        rng.integers(-2, 3, columns),
    ]
    picked = np.array([rows_of_kind[rng.integers(5)] for _ in range(rows)])
    return (picked / 16).astype(np.float32)


WINDOWS = st.sampled_from([twin.ANYWHERE, (40, 1, 16), (100, 4, 16), (250, 1, 6)])
"""Anywhere, two windows, and one that is cut short."""


@given(st.integers(0, 10**6), st.integers(1, 64), st.sampled_from([1, 3, 7, 15, 31, 63, 255]), WINDOWS)
def test_fit_grid_finds_the_twins_grid_on_exact_numbers(seed: int, columns: int, top: int, window: twin.Window) -> None:
    x = exact_rows(seed, 1, columns)[0]
    weight = np.random.default_rng(seed).integers(1, 5, columns).astype(np.float32)
    code, zero, error = rounding.fit_grid(x, weight, top, BASE, POWERS, *window, SEARCH)
    expected = twin.fit_grid(x, weight, top, BASE, POWERS, SEARCH, window)
    assert (code, zero) == expected[:2]
    assert error == pytest.approx(expected.error, rel=1e-6)  # sums of what the smallest scales leave are not exact


@given(st.integers(0, 10**6), st.integers(1, 128), st.sampled_from([3, 7, 15, 31, 63, 255]), st.floats(1e-15, 1e15))
def test_fit_grid_has_the_least_error_of_the_twins_candidates(seed: int, columns: int, top: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_t(3, columns) * size).astype(np.float32)
    weight = rng.lognormal(0, 2, columns).astype(np.float32) / np.float32(size) ** 2
    base = np.float32(scale_base(x))
    table = scale_table(base)
    code, zero, error = rounding.fit_grid(x, weight, top, base, table, *twin.ANYWHERE, SEARCH)
    assert error == pytest.approx(twin.grid_error(x, weight, top, table[code], zero), rel=1e-4, abs=1e-9)
    least = min(grid.error for grid in twin.candidates(x, weight, top, base, table, SEARCH))
    assert error == pytest.approx(least, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("windowed", [False, True])
@given(seed=st.integers(0, 10**6), columns=st.integers(1, 32))
def test_round_group_is_its_twin_on_exact_numbers(feedback: bool, windowed: bool, seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    rows, start = 5, int(rng.integers(0, 3))
    work = exact_rows(seed, rows, start + columns + 2)
    factor = np.triu(rng.integers(-1, 2, (work.shape[1],) * 2), 1).astype(np.float32) + np.eye(
        work.shape[1], dtype="f4"
    )
    weight = rng.integers(1, 5, work.shape[1]).astype(np.float32)
    widths = rng.choice(np.array([2, 3, 4, 5, 6, 8, 16], np.uint8), rows)
    inside = slice(start, start + columns)
    ranges = ScaleRanges.anywhere(rows)
    if windowed:
        ranges = ScaleRanges.read(rng.integers(0, 256, rows).astype(np.uint8), "uniform")
    expected = twin.round_group(
        work[:, inside], factor[inside, inside], weight[inside], widths, BASE, POWERS, SEARCH, ranges, feedback
    )
    outside = np.delete(work, np.arange(work.shape[1])[inside], axis=1)
    codes, grids = np.zeros(work.shape, np.uint8), np.zeros((2, rows, 1), np.uint8)
    errors = np.zeros((rows, columns), np.float32)
    for first, past in ((0, 2), (2, rows)):
        rounding.round_group(
            work, start, start + columns, factor, weight, widths, BASE, POWERS, SEARCH, *EVEN, ranges.lowest,
            ranges.strides, ranges.offsets, ranges.places, feedback, codes, grids[0], grids[1], 0, errors, first,
            past,
        )  # fmt: skip
    np.testing.assert_array_equal(codes[:, inside], expected.codes)
    np.testing.assert_array_equal(grids[0, :, 0], expected.scale_codes)
    np.testing.assert_array_equal(grids[1, :, 0], expected.zeros)
    np.testing.assert_array_equal(work[:, inside], expected.work)
    np.testing.assert_array_equal(errors, expected.errors)
    np.testing.assert_array_equal(np.delete(work, np.arange(work.shape[1])[inside], axis=1), outside)


@given(
    st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 100), st.sampled_from([32, 64]), st.integers(1, 2)
)  # fmt: skip
def test_tile_damage_sums_the_least_errors(seed: int, rows: int, columns: int, size: int, terms: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    weights[rng.random(rows) < 0.1] = 0
    by_row = rng.lognormal(0, 1, (terms, rows)).astype(np.float32)
    by_column = rng.lognormal(0, 1, (terms, columns)).astype(np.float32)
    tops = np.array([3, 7, 255, 0])
    base = np.float32(scale_base(weights))
    table = scale_table(base)
    shape = (-(-rows // 16), -(-columns // size), len(tops))
    out = np.zeros(shape)
    common = (weights, by_row, by_column, size, tops, base, table, SEARCH, EVEN[1], *EVEN[3:], out)
    rounding.tile_damage(*common, 0, 1)
    rounding.tile_damage(*common, 1, shape[0])
    expected = np.zeros(shape)
    for n in range(rows):
        for g in range(shape[1]):
            part = slice(g * size, (g + 1) * size)
            weight = (by_row[:, n : n + 1] * by_column[:, part]).sum(axis=0)
            for s, top in enumerate(tops[:3]):
                search = SEARCH if top < 255 else SEARCH[:2]
                expected[n // 16, g, s] += twin.fit_grid(weights[n, part], weight, int(top), base, table, search).error
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-12)
    assert (out[..., 3] == 0).all()


def ranged(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.float32, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal((rows, columns)) + rng.integers(-1, 2, (rows, 1))).astype(np.float32)
    weights[rng.random(rows) < 0.1] = 0
    widths = rng.choice(np.array([2, 3, 4, 5, 6, 8], np.uint8), weights.shape)
    base = np.float32(scale_base(weights, 255))
    return weights, base, scale_table(base), widths


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 70))
def test_rounding_single_weights_is_its_twin(seed: int, rows: int, columns: int) -> None:
    weights, base, table, widths = ranged(seed, rows, columns)
    codes, grids = np.zeros(weights.shape, np.uint8), np.zeros((2, rows, 1), np.uint8)
    work, errors = weights.copy(), np.zeros_like(weights)
    factor = np.ones((1, 1), np.float32)
    per_weight.round_group(
        work, 0, columns, factor, widths, base, table, False, codes, grids[0], grids[1], 0, errors, 0, rows
    )
    for n in range(rows):
        code, zero = twin.fit_range(weights[n], base, table)
        assert (grids[0, n, 0], grids[1, n, 0]) == (code, zero)
        expected, values = twin.round_on_range(weights[n], widths[n], table[code], zero)
        np.testing.assert_array_equal(codes[n], expected)
        np.testing.assert_allclose(work[n], values, rtol=0, atol=1e-6 * 255 * table[code])


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 70))
def test_damage_of_single_weights_is_its_twin(seed: int, rows: int, columns: int) -> None:
    weights, base, table, _ = ranged(seed, rows, columns)
    rng = np.random.default_rng(seed)
    by_row, by_column = (rng.lognormal(0, 1, (2, size)).astype(np.float32) for size in weights.shape)
    widths = np.array([2, 4, 8])
    out = np.full((rows, columns, 3), np.nan, np.float32)
    per_weight.weight_damage(weights, by_row, by_column, 32, widths, base, table, out, 0, rows)
    for n in range(rows):
        for start in range(0, columns, 32):
            part = slice(start, start + 32)
            code, zero = twin.fit_range(weights[n, part], base, table)
            cost = (by_row[:, n : n + 1] * by_column[:, part]).sum(axis=0)
            for s, bits in enumerate(widths):
                x = weights[n, part]
                _, values = twin.round_on_range(x, np.full(len(x), bits), table[code], zero)
                np.testing.assert_allclose(out[n, part, s], cost * np.square(values - x), rtol=1e-2, atol=1e-8)
