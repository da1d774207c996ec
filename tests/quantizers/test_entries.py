"""Entries of scales and zero-points: what they say is what the file says, for kernels and for readers of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from support.layouts import Case, cases
from support.products import product, random_tensor

from nash_swarm.names import LEVELS, Levels
from nash_swarm.quantizers.formats.native.codebooks import zero_levels
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.scale_ranges import LAST, ScaleRanges, scale_offsets
from nash_swarm.quantizers.runtime.cpu.entries import meanings
from nash_swarm.quantizers.runtime.cpu.gathering import gather
from nash_swarm.quantizers.runtime.cpu.matrix import prepare
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.testing.products import multiply


@given(cases(per_weight=False))
def test_they_say_what_the_file_says(case: Case) -> None:
    """Read byte by byte, in plain Python."""
    layout = case.layout
    tensor = layout.format.pack(case.rounded, case.agent_widths, layout, case.permutation, case.strategies)
    prepared = prepare(tensor)
    read = 0
    for tile in range(layout.row_tiles):
        at = int(prepared.tiles[tile, 1])
        assert at == read
        order = sorted(range(layout.groups), key=lambda group: -int(tensor.widths[tile, group]))
        for group in order:
            width = int(tensor.widths[tile, group])
            if width == HALF:
                continue
            small = width <= 4 and layout.scale_bits == 4
            for lane in range(16):
                row = 16 * tile + lane
                if small:
                    byte, window = int(prepared.entries[at + lane]), int(prepared.windows[tile, lane])
                    offset, first, step = meanings(layout.levels)[width].tolist()
                    level = first + step * (byte % 16)
                    code = min(LAST, window // 2 * 2 + offset + byte // 16 * (4 if window % 2 else 1))
                else:
                    level, code = int(prepared.entries[at + lane]), int(prepared.entries[at + 16 + lane])
                assert level == zero_levels(width, layout.levels)[tensor.zeros[row, group]]
                assert code == tensor.scale_codes[row, group]
            at += 16 if small else 32
        read = at
    assert read == len(prepared.entries)


@pytest.mark.parametrize("levels", LEVELS)
def test_meanings_are_those_of_levels_and_windows(levels: Levels) -> None:
    for width in (2, 3, 4):
        offset, first, step = meanings(levels)[width].tolist()
        np.testing.assert_array_equal(first + step * np.arange(2**width), zero_levels(width, levels))
        assert offset == scale_offsets(levels)[width]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("window", [254, 255, 240, 201])
def test_scale_codes_end_with_the_last_one(window: int, levels: Levels) -> None:
    tensor = random_tensor(window, (40, 200), [2, 3, 4, 6], levels=levels)
    rows = len(tensor.zeros)
    places = np.random.default_rng(0).integers(0, 16, tensor.places.shape).astype(np.uint8)
    tensor = replace(tensor, places=places, ranges=ScaleRanges.read(np.full(rows, window, np.uint8), levels))
    assert (tensor.scale_codes == LAST).any()
    prepared = prepare(tensor)
    for tokens in (1, 2, 9):
        x = np.random.default_rng(tokens).standard_normal((tokens, 200)).astype(np.float32)
        for path in paths.available():
            np.testing.assert_array_equal(product(prepared, x, "int8", path), multiply(tensor, x))
    out = np.empty((40, 200), np.float32)
    gather(prepared, np.arange(40), out, 0, 40)
    np.testing.assert_array_equal(out, tensor.dequantize())
