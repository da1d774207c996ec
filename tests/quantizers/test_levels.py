"""Levels for normal distributions: what they are, how they are rounded to, and that models run on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.dense import dense_copy
from support.models import allocate, logits, tiny_llama
from transformers import AutoModelForCausalLM

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.names import LEVELS, Levels
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.codebooks import (
    NORMAL_WIDTHS,
    code_levels,
    level_bytes,
    level_tables,
    zero_levels,
)
from nash_swarm.quantizers.formats.native.grid import layout_base, scale_table
from nash_swarm.quantizers.formats.native.kernels import rounding
from nash_swarm.quantizers.formats.native.kernels.codebook_fitting import fit_levels
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges
from nash_swarm.quantizers.rounding.rtn import RoundToNearest

TABLES = level_tables("normal")


@pytest.mark.parametrize("width", NORMAL_WIDTHS)
def test_they_are_the_best_for_a_normal_distribution(width: int) -> None:
    """Lloyd's condition: each level is the mean of what is nearest to it, but for the rounding to whole numbers."""
    levels = code_levels(width, "normal").astype(float)
    assert (np.diff(levels) > 0).all() and levels[0] == 0 and levels[-1] == 255
    assert np.array_equal(levels, 255 - levels[::-1])
    # in units in which the outermost level is where Max has it
    outermost = {2: 1.510, 3: 2.152, 4: 2.733, 5: 3.263}[width]
    values = (levels - 127.5) / 127.5 * outermost
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    means = (stats.norm.pdf(edges[:-1]) - stats.norm.pdf(edges[1:])) / np.diff(stats.norm.cdf(edges))
    np.testing.assert_allclose(values, means, atol=1.2 / 127.5 * outermost)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 8])
def test_zero_can_be_said_and_tables_agree(width: int, levels: Levels) -> None:
    values, zeros = code_levels(width, levels), zero_levels(width, levels)
    assert set(values) & set(zeros) and 0 <= zeros.min() <= zeros.max() <= 255 and len(set(np.diff(zeros))) == 1
    tables = level_tables(levels)
    assert np.array_equal(tables.codes[width, : 2**width], values)
    assert np.array_equal(tables.zeros[width, : 2**width], zeros)
    for place in range(512):
        x = place / 2 + 0.25
        assert abs(values[tables.nearest[width, place]] - x) == np.abs(values - x).min()
        assert tables.closest[width, place] == values[tables.nearest[width, place]]
    table = level_bytes(levels)
    if levels == "normal" and width in NORMAL_WIDTHS:
        assert table is not None and np.array_equal(table[width, : 2**width], values)
    elif levels == "uniform":
        assert table is None


def best_of_all(x: np.ndarray, weight: np.ndarray, width: int, base: float) -> float:
    """The least error of any scale and zero-point."""
    values, zeros = code_levels(width, "normal"), zero_levels(width, "normal")
    best = np.inf
    for scale in scale_table(base):
        for zero in zeros:
            got = (values - zero) * float(scale)
            nearest = np.abs(x[:, None] - got).min(axis=1)
            best = min(best, float((weight * nearest**2).sum()))
    return best


@pytest.mark.parametrize("width", NORMAL_WIDTHS)
def test_the_search_finds_nearly_the_best_grid(width: int) -> None:
    rng = np.random.default_rng(width)
    found, best = 0.0, 0.0
    for shift in (0.0, 0.4, -0.3) * 8:
        x = (rng.standard_normal(64) + shift).astype(np.float32)
        weight = rng.lognormal(0, 0.5, 64).astype(np.float32)
        base = np.float32(layout_base(x[None], LAYOUT))
        table = scale_table(base)
        rows = (TABLES.zeros[width], TABLES.closest[width], TABLES.spread[width])
        code, zero, error = fit_levels(x, weight, 2**width - 1, base, table, 0, 1, 256, *rows)
        got = (code_levels(width, "normal") - zero_levels(width, "normal")[zero]) * table[code]
        nearest = np.abs(x[:, None] - got).min(axis=1)
        np.testing.assert_allclose(error, (weight * nearest**2).sum(), rtol=1e-3)
        found, best = found + error, best + best_of_all(x, weight, width, base)
    assert best * 0.999 <= found <= 1.1 * best


LAYOUT = cut("m", "linear", (48, 160), "tile", group_size=64, levels="normal")


@pytest.mark.parametrize(("width", "share"), [(2, 0.85), (3, 0.85), (4, 0.82), (5, 0.88), (6, 1.02), (8, 1.02)])
def test_normal_weights_have_less_error_than_on_even_levels(width: int, share: float) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    errors = {}
    for levels in LEVELS:
        layout = cut("m", "linear", weight.shape, "tile", levels=levels)
        widths = np.full(layout.agents, width, np.uint8)
        rounded = RoundToNearest().round(weight, layout.expand(widths), layout)
        packed = layout.format.pack(rounded, widths, layout, None, (width,))
        errors[levels] = float(np.square(packed.dequantize() - weight).mean())
        assert len(packed.buffer) == layout.memory((width,)).sum() // 8 + layout.fixed_bytes(1)
    assert errors["normal"] < share * errors["uniform"]


@given(st.integers(0, 10**6), st.booleans())
def test_round_group_takes_the_nearest_levels(seed: int, feedback: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = 6, 40
    work = rng.standard_normal((rows, columns)).astype(np.float32)
    work[0] = 0
    factor = np.triu(rng.normal(0, 0.2, (columns, columns)), 1).astype(np.float32) + np.eye(columns, dtype=np.float32)
    widths = rng.choice(np.array([2, 3, 4, 5, 6, 8, HALF], np.uint8), rows)
    base = np.float32(layout_base(work, LAYOUT))
    table, ones = scale_table(base), np.ones(columns, np.float32)
    codes, grids = np.zeros(work.shape, np.uint8), np.zeros((2, rows, 1), np.uint8)
    got, errors = work.copy(), np.zeros_like(work)
    tables = (TABLES.codes, TABLES.zeros, TABLES.nearest, TABLES.closest, TABLES.spread)
    shrinks = np.array([1.0], np.float32)
    ranges = ScaleRanges.anywhere(rows)
    anywhere = (ranges.lowest, ranges.strides, ranges.offsets, ranges.places)
    rounding.round_group(
        got, 0, columns, factor, ones, widths, base, table, shrinks, *tables, *anywhere, feedback, codes,
            grids[0], grids[1], 0, errors, 0, rows,
    )  # fmt: skip
    assert not got[0].any() or widths[0] == HALF
    for n in range(rows):
        width = int(widths[n])
        if width not in NORMAL_WIDTHS:
            continue
        values = (code_levels(width, "normal") - zero_levels(width, "normal")[grids[1, n, 0]]) * table[grids[0, n, 0]]
        x = work[n].astype(np.float64)
        for k in range(columns):
            assert got[n, k] == np.float32(values[codes[n, k]])
            assert abs(values[codes[n, k]] - x[k]) <= np.abs(values - x[k]).min() + 1e-5 * np.abs(values).max()
            if feedback:
                x[k + 1 :] -= (x[k] - values[codes[n, k]]) / factor[k, k] * factor[k, k + 1 :]


def test_a_model_on_them_is_saved_and_read_back(tmp_path: Path) -> None:
    model, ids = tiny_llama(tied=True), np.arange(36, dtype=np.int32).reshape(3, 12)
    game = ns.measure(model, tokens=ids, group_size=32, granularity="tile", quiet=True)  # the default
    ns.save_game(game, tmp_path / "game.npz")
    again = ns.load_game(tmp_path / "game.npz")
    assert again.tensors == game.tensors and {tensor.levels for tensor in again.tensors} == {"normal"}
    even = ns.measure(model, tokens=ids, levels="uniform", group_size=32, granularity="tile", quiet=True)
    assert np.array_equal(even.memory, game.memory)
    # of each matrix one letter in config.json
    assert game.fixed_bits - even.fixed_bits == 8 * len(game.tensors)
    assert game.damage.sum() < 0.95 * even.damage.sum()
    packed = ns.pack(model, allocate(again), quantizer="descent", quiet=True)
    ns.set_activations(packed, "fp32")
    expected = logits(packed, ids)
    torch.testing.assert_close(expected, logits(dense_copy(model, packed), ids), rtol=1e-4, atol=1e-4)
    ns.save(packed, tmp_path / "packed")
    for loaded in (ns.load(tmp_path / "packed"), AutoModelForCausalLM.from_pretrained(tmp_path / "packed")):
        ns.set_activations(loaded, "fp32")
        assert torch.equal(logits(loaded, ids), expected)


def test_a_packed_matrix_says_which_it_has() -> None:
    for levels in LEVELS:
        layout = cut("m", "linear", (20, 70), "tile", group_size=32, ordered=True, levels=levels)
        assert description.read(description.describe(layout, (2, 4)))[0] == layout


def test_impossible_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown levels 'gaussian'"):
        cut("m", "linear", (16, 32), "tile", group_size=32, levels="gaussian")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="parameter"):
        cut("m", "linear", (16, 32), "parameter", group_size=32, levels="normal")
    with pytest.raises(DataError, match="impossible"):
        TensorLayout("m", "linear", 16, 32, 32, 16, 1, levels="dense")
    with pytest.raises(DataError, match="does not describe"):
        description.read("linear 16x32 g32 a16x1 z 2,4 m")
