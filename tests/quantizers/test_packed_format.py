from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.format import decode, decode_weights
from support.layouts import Case, cases, rounded

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native import n16k32
from nash_swarm.quantizers.formats.native.bitstream import read_bits, stream_bytes, write_bits
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.modules import PackedEmbedding


def pack(case: Case) -> PackedTensor:
    return case.layout.format.pack(case.rounded, case.agent_widths, case.layout, case.permutation, case.strategies)


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(1, 8))
def test_bit_streams_round_trip(values: list[int], bits: int) -> None:
    array = (np.array(values, np.int64) % 2**bits).astype(np.uint8)
    stream = write_bits(array, bits)
    assert len(stream) == stream_bytes(len(values), bits)
    np.testing.assert_array_equal(read_bits(stream, len(values), bits), array)


@given(cases(per_weight=False))
def test_codes_unpack_to_what_was_packed(case: Case) -> None:
    widths = case.layout.expand(case.agent_widths)
    stream = n16k32.pack_codes(case.rounded.codes, case.rounded.halves, widths, case.layout)
    codes, halves = n16k32.unpack_codes(stream, widths, case.layout)
    np.testing.assert_array_equal(codes, case.rounded.codes)
    if case.rounded.halves is not None:
        np.testing.assert_array_equal(halves, case.rounded.halves)


@settings(max_examples=25)
@given(cases(per_weight=False, most=80))
def test_dequantize_is_the_format_read_weight_by_weight(case: Case) -> None:
    packed = pack(case)
    np.testing.assert_array_equal(packed.dequantize(), decode(packed.buffer.tobytes(), case.layout))


@settings(max_examples=25)
@given(cases(per_weight=True, most=40))
def test_dequantize_of_single_weights_is_the_format_read_weight_by_weight(case: Case) -> None:
    packed = pack(case)
    expected, scales = decode_weights(packed.buffer.tobytes(), case.layout, case.strategies)
    assert (np.abs(packed.dequantize() - expected) <= 255 * 2.0**-22 * scales).all()


@given(cases(per_weight=False), st.integers(0, 100))
def test_kernels_read_what_dequantize_reads(case: Case, seed: int) -> None:
    packed = pack(case)
    module = PackedEmbedding(case.layout, case.strategies, len(packed.buffer))
    module.packed = torch.from_numpy(packed.buffer)
    expected = torch.from_numpy(packed.dequantize())
    assert torch.equal(module.dense(), expected)
    wanted = torch.from_numpy(np.random.default_rng(seed).integers(0, case.layout.rows, (2, 3)))
    assert torch.equal(module(wanted), expected[wanted])


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_a_buffer_is_a_data_error_or_still_a_matrix(data: st.DataObject) -> None:
    case = data.draw(cases(most=60))
    buffer = pack(case).buffer.copy()
    # the end is where the structure is
    reach = min(len(buffer), 4 + case.layout.agents + 2 * case.layout.columns)
    for _ in range(data.draw(st.integers(0, 4))):
        buffer[-data.draw(st.integers(1, reach))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    buffer = buffer[: len(buffer) - cut] if data.draw(st.booleans()) else np.append(buffer, np.zeros(cut, np.uint8))
    try:
        matrix = case.layout.format.read(buffer, case.layout, case.strategies).dequantize()
    except DataError as error:
        assert str(error).startswith("m: ")
    else:
        assert matrix.shape == (case.layout.rows, case.layout.columns)


@given(cases(most=60), st.data())
def test_a_buffer_of_another_length_is_refused(case: Case, data: st.DataObject) -> None:
    buffer = pack(case).buffer
    kept = data.draw(st.integers(0, len(buffer) - 1))
    with pytest.raises(DataError, match="m: "):
        case.layout.format.read(buffer[:kept].copy(), case.layout, case.strategies)
    with pytest.raises(DataError, match="m: "):
        case.layout.format.read(np.concatenate([buffer[:1], buffer]), case.layout, case.strategies)


SQUARE = cut("m", "linear", (32, 64), "tile", group_size=64, ordered=True)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (-4, np.array([np.nan], "<f4"), "scale base"),
        (-4, np.array([0], "<f4"), "scale base"),
        (-4, np.array([-1], "<f4"), "scale base"),
        (-4, np.array([3e38], "<f4"), "scale base"),
        (-5, np.array([0x7F], "u1"), "width code"),
        (-5, np.array([0x00], "u1"), "bytes of codes|cut short"),
        (-5 - 128, np.array([1, 1], "<u2"), "no permutation"),
        (-5 - 128, np.array([64], "<u2"), "no permutation"),
    ],
)
def test_what_is_wrong_is_named(at: int, value: np.ndarray, message: str) -> None:
    widths = np.array([4, 8], np.uint8)
    packed = PackedTensor.pack(
        rounded(np.random.default_rng(0), SQUARE, widths), widths, SQUARE, np.arange(64)[::-1], (4, 8)
    )
    buffer, part = packed.buffer.copy(), value.view(np.uint8)
    where = len(buffer) + at
    buffer[where : where + len(part)] = part
    with pytest.raises(DataError, match=message):
        SQUARE.format.read(buffer, SQUARE, (4, 8))
    with pytest.raises(DataError, match="contiguous"):
        SQUARE.format.read(packed.buffer[::2], SQUARE, (4, 8))
