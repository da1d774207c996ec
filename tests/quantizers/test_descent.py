"""Coordinate descent after GPTQ: never worse, ends where no code can do better, does what a plain loop does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nash_swarm.errors import UsageError
from nash_swarm.names import LEVELS, Levels
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.codebooks import code_levels
from nash_swarm.quantizers.formats.native.grid import Rounded, dequantize, row_widths, scale_table
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout
from nash_swarm.quantizers.rounding.descent import Descent
from nash_swarm.quantizers.rounding.gptq import Gptq

ROWS, COLUMNS, GROUP = 32, 72, 32
Matrix = np.ndarray


def problem(
    seed: int, widths: tuple[int, ...], levels: Levels = "uniform"
) -> tuple[Matrix, Matrix, TensorLayout, Matrix]:
    """Weights, widths, layout and a Hessian of few directions."""
    rng = np.random.default_rng(seed)
    layout = cut("m", "linear", (ROWS, COLUMNS), "tile", group_size=GROUP, levels=levels)
    x = rng.standard_normal((200, 12)) @ rng.standard_normal((12, COLUMNS)) + rng.standard_normal((200, COLUMNS))
    hessian = (x.T @ x / len(x)).astype(np.float32)
    chosen = layout.expand(rng.choice(np.array(widths, np.uint8), layout.agents))
    return rng.standard_normal((ROWS, COLUMNS)).astype(np.float32), chosen, layout, hessian


def damped(hessian: Matrix, damping: float) -> Matrix:
    exact = hessian.astype(np.float64)
    return exact + damping * np.trace(exact) / len(exact) * np.eye(len(exact))


def row_errors(
    rounded: Rounded, weight: Matrix, widths: Matrix, hessian: Matrix, layout: TensorLayout
) -> tuple[Matrix, Matrix]:
    """What the rows of a rounded matrix cost, and its errors."""
    errors = dequantize(rounded.codes, rounded.scale_codes, rounded.zeros, rounded.base, widths, layout)
    errors = errors.astype(np.float64)
    if rounded.halves is not None:
        exact = np.repeat(widths == HALF, GROUP, axis=1)[:, :COLUMNS]
        errors = np.where(exact, rounded.halves, errors)
    errors = errors - weight
    return np.einsum("nk,kj,nj->n", errors, hessian, errors), errors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(2,), (3,), (2, 3, 4), (2, 8, HALF), (5, 6)]), st.sampled_from(LEVELS))
def test_no_row_is_worse_than_gptq_leaves_it(seed: int, kinds: tuple[int, ...], levels: Levels) -> None:
    weight, widths, layout, hessian = problem(seed, kinds, levels)
    ours = Descent()
    before = Gptq(ours.damping, shrinks=ours.shrinks).round(weight, widths, layout, hessian)
    after = ours.round(weight, widths, layout, hessian)
    by_row, seen = row_widths(widths, layout), damped(hessian, ours.damping)
    first, last = (row_errors(rounded, weight, by_row, seen, layout)[0] for rounded in (before, after))
    assert (last <= first * (1 + 1e-5)).all()
    np.testing.assert_array_equal(before.scale_codes, after.scale_codes)
    np.testing.assert_array_equal(before.zeros, after.zeros)
    assert (after.codes < 1 << np.repeat(np.minimum(by_row, 8).astype(int), GROUP, axis=1)[:, :COLUMNS]).all()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_gains_and_no_single_code_can_gain_more(bits: int, levels: Levels) -> None:
    weight, widths, layout, hessian = problem(1, (bits,), levels)
    ours = Descent(sweeps=100)
    seen, by_row = damped(hessian, ours.damping), row_widths(widths, layout)
    after = ours.round(weight, widths, layout, hessian)
    start = row_errors(replace(ours, sweeps=0).round(weight, widths, layout, hessian), weight, by_row, seen, layout)[0]
    cost, errors = row_errors(after, weight, by_row, seen, layout)
    assert cost.sum() < 0.97 * start.sum()
    scales = scale_table(after.base)[after.scale_codes][:, np.arange(COLUMNS) // GROUP].astype(np.float64)
    values = code_levels(bits, levels)
    for move in (-1, 1):
        there = after.codes.astype(int) + move
        allowed = (there >= 0) & (there < 1 << bits)
        step = scales * (values[there.clip(0, (1 << bits) - 1)] - values[after.codes])
        change = 2 * step * (errors @ seen) + np.square(step) * seen.diagonal()
        assert (change[allowed] > -1e-4 * cost.mean()).all()


@pytest.mark.parametrize("levels", LEVELS)
def test_the_kernel_is_a_plain_loop(levels: Levels) -> None:
    weight, widths, layout, hessian = problem(2, (2, 4, HALF), levels)
    ours = Descent(sweeps=3)
    rounded = replace(ours, sweeps=0).round(weight, widths, layout, hessian)
    seen, by_row = damped(hessian, ours.damping), row_widths(widths, layout)
    slopes = row_errors(rounded, weight, by_row, seen, layout)[1] @ seen
    codes, scales = rounded.codes.astype(int), scale_table(rounded.base)[rounded.scale_codes].astype(np.float64)
    for n in range(ROWS):
        for _ in range(ours.sweeps):
            for k in range(COLUMNS):
                bits, scale = int(by_row[n, k // GROUP]), scales[n, k // GROUP]
                if bits == HALF:
                    continue
                values = code_levels(bits, levels)
                wanted = values[codes[n, k]] - slopes[n, k] / (seen[k, k] * scale)
                new = int(np.abs(values - wanted).argmin())
                slopes[n] += (values[new] - values[codes[n, k]]) * scale * seen[k]
                codes[n, k] = new
    np.testing.assert_array_equal(ours.round(weight, widths, layout, hessian).codes, codes)


def test_without_a_hessian_or_sweeps_it_is_gptq() -> None:
    weight, widths, layout, hessian = problem(3, (3,))
    plain = Gptq(Descent().damping, shrinks=Descent().shrinks)
    for quantizer, seen in ((Descent(), None), (Descent(), np.zeros_like(hessian)), (Descent(sweeps=0), hessian)):
        np.testing.assert_array_equal(
            quantizer.round(weight, widths, layout, seen).codes, plain.round(weight, widths, layout, seen).codes
        )
    with pytest.raises(UsageError, match="sweeps"):
        Descent(sweeps=-1)
