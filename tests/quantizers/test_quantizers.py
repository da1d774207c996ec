from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nash_swarm import registry
from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.rounding.gptq import Gptq
from nash_swarm.quantizers.rounding.hessian import column_weights, inverse_factor
from nash_swarm.quantizers.rounding.rtn import RoundToNearest

Matrix = np.ndarray
ROWS, COLUMNS = 48, 96


@pytest.fixture(params=registry.names("quantizers"))
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    found: Quantizer = registry.create("quantizers", request.param)
    return found


def weights(seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)).astype(np.float32)


def inputs(seed: int = 0) -> Matrix:
    """Correlated, and falling along the columns as in activation order."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((500, 30)) @ rng.standard_normal((30, COLUMNS)) + rng.standard_normal((500, COLUMNS))
    return mixed * np.linspace(2, 0.1, COLUMNS)


def hessian(x: Matrix) -> Matrix:
    return (x.T @ x / len(x)).astype(np.float32)


def values(
    quantizer: Quantizer, weight: Matrix, bits: int | Matrix, seen: Matrix | None = None, granularity: str = "tile",
    scale_bits: int | None = None,
) -> Matrix:  # fmt: skip
    """`weight` rounded, packed and read back."""
    layout = cut("m", "linear", weight.shape, granularity, group_size=32)
    if scale_bits is not None:
        layout = replace(layout, scale_bits=scale_bits)
    widths = np.full(layout.agents, bits, np.uint8) if isinstance(bits, int) else bits
    rounded = quantizer.round(weight, layout.expand(widths), layout, seen)
    strategies = tuple(np.unique(widths).tolist())
    return layout.format.pack(rounded, widths, layout, None, strategies).dequantize()


@pytest.mark.parametrize("granularity", ["layer", "tile", "parameter"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_beats_rtn_in_output_error(bits: int, granularity: str) -> None:
    weight, x = weights(), inputs()
    plain, compensated = (
        float(np.square((values(q, weight, bits, hessian(x), granularity) - weight) @ x.T).sum())
        for q in (RoundToNearest(), Gptq())
    )
    assert compensated < 0.8 * plain


@pytest.mark.parametrize("granularity", ["tile", "parameter"])
def test_gptq_without_correlations_is_rtn(granularity: str) -> None:
    weight = weights()
    for seen in (np.eye(COLUMNS, dtype=np.float32), np.zeros((COLUMNS, COLUMNS), np.float32), None):
        np.testing.assert_array_equal(
            values(Gptq(), weight, 3, seen, granularity), values(RoundToNearest(), weight, 3, None, granularity)
        )


def test_rtn_clips_where_it_costs_least() -> None:
    weight = weights()
    loud = np.ones(COLUMNS, np.float32)
    loud[::7] = 1000
    seen = np.diag(loud)
    for scale_bits, most in ((8, 1 + 1e-4), (4, 1.05)):  # windows are chosen for scales that the search may not try
        error = {
            name: np.square(values(RoundToNearest(), weight, 2, h, scale_bits=scale_bits) - weight) @ loud
            for name, h in (("known", seen), ("unknown", None))
        }
        assert (error["known"] <= error["unknown"] * most).all()
        assert error["known"].sum() < 0.9 * error["unknown"].sum()
    searched, unsearched = (
        np.square(values(RoundToNearest(shrinks=shrinks), weight, 2) - weight).sum()
        for shrinks in ((1.0, 0.8, 0.6), (1.0,))
    )
    assert searched < 0.9 * unsearched


def test_wide_grids_do_not_clip(quantizer: Quantizer) -> None:
    weight = weights()
    span = np.ptp(weight.reshape(ROWS, -1, 32), axis=2).mean()
    for bits in (6, 8):
        error = np.sqrt(np.square(values(quantizer, weight, bits) - weight).mean())
        # uniform within a step; steps are a twentieth wider than the range needs
        assert error < 1.1 * span / (2**bits - 1) / np.sqrt(12)


def test_more_bits_cost_less(quantizer: Quantizer) -> None:
    weight, seen = weights(), hessian(inputs())
    for granularity in ("tile", "parameter"):
        errors = [
            float(np.einsum("ij,jk,ik", d := values(quantizer, weight, bits, seen, granularity) - weight, seen, d))
            for bits in (2, 3, 4, 5, 6, 8)
        ]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 * errors[0]


def test_each_tile_gets_its_own_width(quantizer: Quantizer) -> None:
    weight = weights()
    widths = np.array([2, 16, 8, 4, 16, 2, 3, 5, 6], np.uint8)
    found = values(quantizer, weight, widths)
    for tile in range(3):
        for group in range(3):
            part = np.s_[tile * 16 : tile * 16 + 16, group * 32 : group * 32 + 32]
            bits = widths[tile * 3 + group]
            if bits == 16:
                np.testing.assert_array_equal(found[part], weight[part].astype(np.float16))
            else:
                levels = max(len(np.unique(row)) for row in found[part])
                assert min(2 ** int(bits) // 2, 8) < levels <= 2 ** int(bits)


def test_errors_of_a_group_are_taken_up_by_the_next_one_even_at_16_bits() -> None:
    weight, x = weights(), inputs()
    widths = np.tile(np.array([2, 16, 16], np.uint8), 3)
    error = np.square((values(Gptq(), weight, widths, hessian(x)) - weight) @ x.T).sum()
    alone = np.square((values(RoundToNearest(), weight, widths, hessian(x)) - weight) @ x.T).sum()
    assert error < 0.5 * alone


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e-40, 1e20])
@pytest.mark.parametrize("granularity", ["tile", "parameter"])
def test_constant_matrices(quantizer: Quantizer, value: float, granularity: str) -> None:
    weight = np.full((ROWS, COLUMNS), value, np.float32)
    for bits in (2, 8):
        found = values(quantizer, weight, bits, None, granularity)
        # scales come in steps of 4.4 %, to the nearest one; single weights take the next wider one
        np.testing.assert_allclose(found, weight, rtol=0.025 if granularity == "tile" else 0.05, atol=1e-30)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_weights_that_are_not_finite_are_refused(quantizer: Quantizer, value: float, message: str) -> None:
    weight = weights()
    weight[3, 5] = value
    with pytest.raises(DataError, match=message):
        values(quantizer, weight, 4)


def test_weights_too_large_for_their_format_are_refused(quantizer: Quantizer) -> None:
    with pytest.raises(DataError, match="half precision"):
        values(quantizer, weights() * np.float32(1e5), 16)
    assert np.isfinite(values(quantizer, weights() * np.float32(1e5), np.tile(np.array([2, 8, 4], np.uint8), 3))).all()
    with pytest.raises(DataError, match="cannot be quantized"):
        values(quantizer, weights() * np.float32(1e32), 4)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    seen, damping = hessian(inputs()).astype(np.float64), 0.01
    damped = seen + damping * seen.diagonal().mean() * np.eye(COLUMNS)
    factor = inverse_factor(seen.astype(np.float32), damping).astype(np.float64)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(COLUMNS), atol=1e-3)
    np.testing.assert_allclose(column_weights(seen.astype(np.float32), damping), factor.diagonal() ** -2, rtol=1e-5)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_damping_grows_until_a_hessian_can_be_factored(damping: float) -> None:
    singular = hessian(inputs()[:3])
    indefinite = np.eye(COLUMNS, dtype=np.float32) - np.float32(1.2 / COLUMNS)
    assert np.linalg.eigvalsh(indefinite)[0] < -0.1
    for matrix in (singular, indefinite):
        before = matrix.copy()
        assert np.isfinite(inverse_factor(matrix, damping)).all()
        np.testing.assert_array_equal(matrix, before)
        assert np.isfinite(values(Gptq(damping=damping), weights(), 3, matrix)).all()


def test_hopeless_hessians_are_refused() -> None:
    crossed = np.full((COLUMNS, COLUMNS), 1e12, np.float32)
    np.fill_diagonal(crossed, 1)
    infinite = np.eye(COLUMNS, dtype=np.float32)
    infinite[0, 0] = np.inf
    for matrix, message in ((crossed, "positive definite"), (infinite, "overflowed")):
        with pytest.raises(DataError, match=message):
            inverse_factor(matrix, 0.01)


def test_columns_that_saw_no_input_are_rounded_on_their_own() -> None:
    weight, x = weights(), inputs()
    dead = np.arange(COLUMNS) >= 64
    x[:, dead] = 0
    factor = inverse_factor(hessian(x), 0.01)
    assert not np.triu(factor, 1)[:, dead].any()
    # a window of scales would be one thing that a row's columns share
    found = values(Gptq(), weight, 3, hessian(x), scale_bits=8)
    np.testing.assert_array_equal(found[:, dead], values(RoundToNearest(), weight, 3, scale_bits=8)[:, dead])
