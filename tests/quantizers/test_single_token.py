"""Kernels between the products: the same bits as NumPy's, and close to what they are meant to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import single_token as reference

from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, SILU, attention_room, kernels

f = np.float32


def random(*shape: int, seed: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(f)


def address(array: np.ndarray) -> int:
    assert array.dtype == f and array.flags.c_contiguous
    return int(array.ctypes.data)


SEEDS, VECTORS = st.integers(0, 2**32 - 1), st.integers(1, 9).map(lambda n: n * LANES)


@given(st.integers(1, 5), VECTORS, st.sampled_from([1e-6, 1e-5, 0.5]), st.sampled_from([1e-20, 1.0, 1e15]), SEEDS)
def test_norm(tokens: int, size: int, epsilon: float, spread: float, seed: int) -> None:
    x, weight = random(tokens, size, seed=seed, spread=spread), random(size, seed=seed + 1)
    out = np.full((tokens + 1, size), 7, f)
    kernels().norm(address(x), address(weight), address(out), tokens, size, epsilon)
    assert np.array_equal(out[:tokens], reference.norm(x, weight, epsilon)) and (out[tokens:] == 7).all()
    wide = x.astype(float)
    exact = weight * wide / np.sqrt((wide**2).mean(1, keepdims=True) + epsilon)
    np.testing.assert_allclose(out[:tokens], exact, rtol=1e-5, atol=1e-30)


@given(VECTORS, st.sampled_from([0.1, 3.0, 100.0, 1e30]), SEEDS)
def test_gate(size: int, spread: float, seed: int) -> None:
    values, factors = random(size, seed=seed, spread=spread), random(size, seed=seed + 1)
    out = np.full(size + 1, 7, f)
    kernels().gate(address(values), address(factors), address(out), size, SILU)
    assert np.array_equal(out[:-1], reference.gate(values, factors)) and out[-1] == 7
    wide = values.astype(float)
    np.testing.assert_allclose(out[:-1], wide / (1 + np.exp(np.minimum(-wide, 700))) * factors, rtol=2e-6, atol=1e-30)


def test_exponentials_over_the_whole_range() -> None:
    """Seen through the gate: 1 / (1 + exp(-x)) of x = -88 ... 88, and of what is no number."""
    values = np.linspace(-88, 88, 2**16, dtype=f)
    out, ones = np.empty_like(values), np.ones_like(values)
    kernels().gate(address(values), address(ones), address(out), len(values), SILU)
    np.testing.assert_allclose(out, values / (1 + np.exp(-values.astype(float))), rtol=1e-6, atol=1e-35)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0] * 4, f)
    kernels().gate(address(odd), address(ones), address(odd), len(odd), SILU)
    assert np.isnan(odd[::4]).all() and (odd[1::4] == np.inf).all() and (odd[3::4] == 0).all()


@given(st.integers(1, 5), st.integers(1, 4).map(lambda n: 2 * n * LANES), SEEDS)
def test_rotation(heads: int, size: int, seed: int) -> None:
    x, angles = random(heads, size, seed=seed), random(size // 2, seed=seed + 1)
    cosines, sines = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)
    expected = reference.rotate(x, cosines, sines)
    turned = (x[:, : size // 2] + 1j * x[:, size // 2 :].astype(float)) * np.exp(1j * angles.astype(float))
    kernels().rotate(address(x), address(cosines), address(sines), heads, size, size)
    assert np.array_equal(x, expected)
    np.testing.assert_allclose(x, np.concatenate((turned.real, turned.imag), axis=1), atol=1e-5)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 4).map(lambda n: n * LANES),
    st.sampled_from([0.1, 1.0, 30.0]), st.booleans(), SEEDS,
)  # fmt: skip
def test_attention(heads: int, group: int, tokens: int, size: int, spread: float, apart: bool, seed: int) -> None:
    queries = random(heads, group, size, seed=seed, spread=spread)
    shape = (tokens, heads, size) if apart else (heads, tokens, size)  # keys need not stand side by side
    keys, values = random(*shape, seed=seed + 1), random(*shape, seed=seed + 2)
    strides = (size, heads * size) if apart else (tokens * size, size)
    out, room = np.empty_like(queries), np.full(attention_room(group, tokens) + 1, 7, f)
    kernels().attend(
        address(queries), address(keys), address(values), address(out), address(room), heads, group, tokens, size,
        *strides, *strides, 0.25,
    )  # fmt: skip
    assert room[-1] == 7
    if apart:
        keys, values = keys.transpose(1, 0, 2), values.transpose(1, 0, 2)
    assert np.array_equal(out, reference.attend(queries, keys, values, 0.25))
    scores = np.einsum("hgd,htd->hgt", queries.astype(float), keys) * 0.25
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    exact = np.einsum("hgt,htd->hgd", shares / shares.sum(axis=-1, keepdims=True), values)
    np.testing.assert_allclose(out, exact, atol=1e-4 * max(1, spread))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_no_number_stays_visible(poison: float) -> None:
    x, weight = random(2, 32, seed=0), random(32, seed=1)
    x[1, 20] = poison
    out = np.empty_like(x)
    kernels().norm(address(x), address(weight), address(out), 2, 32, 1e-6)
    assert np.isfinite(out[0]).all() and np.isnan(out[1, 20])
