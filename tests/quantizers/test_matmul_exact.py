"""Kernels against the integer arithmetic of NumPy, to the last bit, on every instruction path of this CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layouts import Case, cases
from support.products import WIDTHS, product, random_tensor

from nash_swarm.errors import DataError
from nash_swarm.names import LEVELS, Levels, Mode
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.matrix import LONGEST_GROUP, prepare
from nash_swarm.quantizers.runtime.cpu.product import Product
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.testing import products as oracle

PATHS = paths.available()
MODES: tuple[Mode, ...] = ("int8", "fp32")
TOKENS = (1, 2, 3, 7, 8, 9, 31, 33)


@pytest.fixture
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def inputs(seed: int, tokens: int, columns: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((tokens, columns)).astype(np.float32)


def assert_exact(tensor: PackedTensor, x: npt.NDArray[np.float32]) -> None:
    prepared = prepare(tensor)
    for mode in MODES:
        expected = oracle.multiply(tensor, x, mode)
        for path in PATHS:
            np.testing.assert_array_equal(product(prepared, x, mode, path), expected, f"{mode} {path}")


@given(cases(per_weight=False), st.sampled_from(TOKENS), st.integers(0, 99))
def test_mixed_layouts(case: Case, tokens: int, seed: int) -> None:
    tensor = case.layout.format.pack(case.rounded, case.agent_widths, case.layout, case.permutation, case.strategies)
    assert_exact(tensor, inputs(seed, tokens, case.layout.columns))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("group_size", [32, 64, 96, 128])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_width_and_group_size(bits: int, group_size: int, levels: Levels) -> None:
    for tokens in TOKENS:
        shape = (35, 2 * group_size + 37)
        tensor = random_tensor(tokens, shape, [bits], group_size=group_size, levels=levels)
        assert_exact(tensor, inputs(tokens, tokens, tensor.layout.columns))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_largest_codes_times_largest_activations(bits: int, sign: int, levels: Levels) -> None:
    """Every product is as large as it gets: nothing saturates or overflows on the way."""
    tensor = random_tensor(0, (16, 256), [bits], group_size=128, extreme=True, levels=levels)
    tensor.zeros[:] = 0
    full = np.full_like(tensor.buffer[: tensor.code_bytes], 255 if bits < 16 else 0x3C)
    tensor.buffer[: tensor.code_bytes] = full
    for tokens in (1, 2, 9):
        assert_exact(tensor, np.full((tokens, 256), sign, np.float32))


@pytest.mark.parametrize("sign", [-1, 1])
def test_longest_group(sign: int) -> None:
    """Neither the sums nor what is kept of them overflows."""
    tensor = random_tensor(0, (16, LONGEST_GROUP), [8], group_size=LONGEST_GROUP, extreme=True)
    tensor.buffer[: tensor.code_bytes] = 255
    for zero in (0, 255):
        tensor.zeros[:] = zero
        for tokens in (1, 2, 16):
            assert_exact(tensor, np.full((tokens, LONGEST_GROUP), sign, np.float32))
    too_long = random_tensor(0, (16, 64), [8], group_size=2 * LONGEST_GROUP)
    with pytest.raises(DataError, match="too long"):
        prepare(too_long)


def test_chunks_of_many_tokens() -> None:
    """More tokens than pass over a tile at a time."""
    tensor = random_tensor(1, (16, 12000), [3, 8], group_size=128)
    assert_exact(tensor, inputs(1, 150, 12000))


@given(st.integers(0, 20), st.sampled_from(TOKENS), st.sampled_from(MODES), st.sampled_from([WIDTHS, WIDTHS[:-1]]))
@settings(max_examples=20)
def test_tokens_do_not_depend_on_their_batch(seed: int, tokens: int, mode: Mode, widths: tuple[int, ...]) -> None:
    tensor = random_tensor(seed, (50, 200), widths)
    prepared, x = prepare(tensor), inputs(seed, tokens, 200)
    together = product(prepared, x, mode)
    for token in range(tokens):
        np.testing.assert_array_equal(product(prepared, x[token : token + 1], mode)[0], together[token])


@pytest.mark.parametrize("tokens", [3, 16, 50, 133])
def test_threads_round_what_one_rounds(tokens: int, few_threads: None) -> None:
    prepared, x = prepare(random_tensor(5, (20, 333), [3, 8], group_size=96)), inputs(5, tokens, 333)
    for mode, path in itertools.product(MODES, PATHS):
        runner = Product(prepared, mode, path)
        alone, shared = np.full((2, runner.activation_bytes(tokens)), 255, np.uint8)
        work = np.empty(runner.work_bytes(tokens), np.uint8)
        runner.quantize(x.ctypes.data, tokens, alone.ctypes.data, work.ctypes.data)
        runner.share_quantize(x.ctypes.data, tokens, shared.ctypes.data, 1)
        np.testing.assert_array_equal(alone, shared, f"{mode} {path}")


@given(st.integers(0, 20), st.integers(0, 5), st.integers(0, 5), st.sampled_from(MODES))
def test_a_range_of_tiles_writes_its_rows_only(seed: int, a: int, b: int, mode: Mode) -> None:
    first, past = sorted((a, b))
    tensor = random_tensor(seed, (75, 100))
    prepared, x = prepare(tensor), inputs(seed, 21, 100)
    rows = slice(16 * first, 16 * past)
    for path in PATHS:
        runner, out = Product(prepared, mode, path), np.full((21, 75), np.pi, np.float32)
        activations, work = (np.empty(size(21), np.uint8) for size in (runner.activation_bytes, runner.work_bytes))
        runner.quantize(x.ctypes.data, 21, activations.ctypes.data, work.ctypes.data)
        runner.multiply(activations.ctypes.data, out.ctypes.data, 21, work.ctypes.data, first, past)
        np.testing.assert_array_equal(out[:, rows], oracle.multiply(tensor, x, mode)[:, rows])
        out[:, rows] = np.pi
        assert (out == np.float32(np.pi)).all()


def test_zero_and_tiny_groups_are_zero() -> None:
    tensor = random_tensor(2, (20, 192), [4, 8])
    x = inputs(2, 20, 192)
    for value in (0.0, 1e-38, 1e-42):
        x[:, tensor.permutation[64:128]] = value
        x[1] = value
        assert_exact(tensor, x)
        assert not product(prepare(tensor), x, "int8")[1].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(mode: Mode, value: float) -> None:
    prepared = prepare(random_tensor(3, (20, 100), [2, 5, 8]))
    for tokens in (1, 9, 17):
        x = inputs(3, tokens, 100)
        expected = product(prepared, x, mode)
        x[0, 70] = value
        for path in PATHS:
            got = product(prepared, x, mode, path)
            assert not np.isfinite(got[0]).any()
            np.testing.assert_array_equal(got[1:], expected[1:])


def test_half_precision_values_of_every_kind() -> None:
    """Denormals, the largest numbers, infinities: converted without the CPU's help."""
    tensor = random_tensor(4, (16, 64), [16], ordered=False)
    patterns = np.random.default_rng(4).integers(0, 2**16, 1024).astype(np.uint16)
    patterns[:6] = (0x0001, 0x8001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00)
    patterns[np.isnan(patterns.view(np.float16))] = 0x8000
    tensor.buffer[: tensor.code_bytes].view(np.uint16)[:] = patterns
    dense = tensor.dequantize()
    prepared = prepare(tensor)
    for column in range(64):
        x = np.zeros((1, 64), np.float32)
        x[0, column] = 1
        finite = np.isfinite(dense).all(axis=1)
        for path in PATHS:
            np.testing.assert_array_equal(product(prepared, x, "fp32", path)[0, finite], dense[finite, column])
    assert np.isinf(dense).any() and finite.any()


@given(cases(per_weight=False), st.integers(0, 99))
def test_the_reference_is_the_dense_product(case: Case, seed: int) -> None:
    """Held against double precision: exact activations to rounding, int8 ones within half a step of each input."""
    tensor = case.layout.format.pack(case.rounded, case.agent_widths, case.layout, case.permutation, case.strategies)
    x, dense = inputs(seed, 3, case.layout.columns), tensor.dequantize().astype(np.float64)
    true, size = x @ dense.T, np.abs(x) @ np.abs(dense).T
    assert (np.abs(oracle.multiply(tensor, x, "fp32") - true) <= 1e-5 * size + 1e-30).all()
    steps = np.abs(x).max(axis=1, keepdims=True) / 127
    allowed = 0.5001 * steps * np.abs(dense).sum(axis=1) + 1e-5 * size
    assert (np.abs(oracle.multiply(tensor, x, "int8") - true) <= allowed).all()
