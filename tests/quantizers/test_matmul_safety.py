"""Kernels stay inside the memory they are given, whatever a file says: a page behind it ends the process if not."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.products import WIDTHS, guarded, product, random_tensor

from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix, prepare
from nash_swarm.quantizers.runtime.cpu.product import Product, product_of

TESTS = Path(__file__).parents[1]
# not `from quantizers.test_...`: the repository's own folder of that name may come first on somebody's path
THIS = "import sys; sys.path.insert(0, 'quantizers'); from test_matmul_safety import *; "


def in_a_process_of_its_own(code: str) -> str:
    """What code prints; whatever ends the process ends only that one."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS)
    assert result.returncode == 0, f"exit {result.returncode}\n{result.stderr[-2000:]}"
    return result.stdout


def run_guarded(tensor: PackedTensor, tokens: int) -> None:
    """Multiply with everything the kernels touch right before a forbidden page."""
    if isinstance(tensor.buffer, np.ndarray) and tensor.buffer.dtype == np.uint8 and tensor.buffer.flags.c_contiguous:
        buffer = guarded(len(tensor.buffer))
        buffer[:] = tensor.buffer
        tensor = dataclasses.replace(tensor, buffer=buffer)
    prepared = prepare(tensor)
    x = guarded(4 * tokens * tensor.layout.columns).view(np.float32).reshape(tokens, -1)
    x[:] = 1
    for mode in ("int8", "fp32"):
        product(prepared, x, mode, room=guarded)  # type: ignore[arg-type]


def sound() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 60)), int(rng.integers(1, 200)))
        widths = WIDTHS if seed % 2 else WIDTHS[:-1]  # all of them, or none whose inputs are kept unrounded
        tensor = random_tensor(seed, shape, widths, group_size=int(rng.choice([32, 64, 128])))
        run_guarded(tensor, int(rng.choice([1, 2, 3, 4, 7, 11, 16, 17, 31, 40])))


def damaged_bytes() -> int:
    """Files with flipped bytes, cut short or made longer: refused, or multiplied with."""
    refused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tensor = random_tensor(seed % 5, (40, 150))
        buffer = tensor.buffer.copy()
        # the tables are at the end
        places = len(buffer) - 1 - rng.integers(0, rng.choice([4, 40, 400, len(buffer)]), 3)
        buffer[places] = rng.integers(0, 256, 3)
        if seed % 4 == 0:
            buffer = np.concatenate([buffer, buffer[: rng.integers(1, 64)]])
        elif seed % 4 == 1:
            buffer = buffer[: rng.integers(0, len(buffer))].copy()
        try:
            run_guarded(tensor.layout.format.read(buffer, tensor.layout, (2, 3, 4, 5, 6, 8, 16)), 1 + seed % 3)
        except DataError:
            refused += 1
    return refused


def lies(rng: np.random.Generator, tensor: PackedTensor) -> dict[str, Any]:
    """Tables of a parsed tensor that do not fit the rest of it, one of each kind."""
    layout = tensor.layout
    widths = tensor.widths.copy()
    widths[rng.integers(len(widths)), rng.integers(widths.shape[1])] = rng.choice([0, 7, 8, 16, 31, 255])
    permutation = tensor.permutation.copy()
    permutation[rng.integers(len(permutation))] = rng.choice([-1, layout.columns, 2**31, -(2**62)])
    twice = tensor.permutation.copy()
    twice[0] = twice[1]
    larger = dataclasses.replace(layout, rows=layout.rows + 16)
    wider = dataclasses.replace(layout, columns=layout.columns + 64)
    return {
        "widths": widths,
        "widths ": tensor.widths[:-1],
        "widths  ": tensor.widths.astype(np.int64),
        "zeros": tensor.zeros[:-1],
        "zeros ": tensor.zeros.astype(np.float32),
        "permutation": permutation,
        "places": tensor.places[:-1],
        "places ": tensor.places.astype(np.int8),
        "ranges": ScaleRanges.anywhere(layout.rows + 1),
        "permutation ": twice,
        "permutation  ": tensor.permutation[:-1],
        "permutation   ": tensor.permutation.astype(np.int32),
        "buffer": tensor.buffer[: rng.integers(0, tensor.code_bytes + 8)],
        "buffer ": np.repeat(tensor.buffer, 2)[::2],
        "buffer  ": tensor.buffer.view(np.int8),
        "buffer   ": tensor.buffer.tobytes(),
        "code_bytes": tensor.code_bytes + 64,
        "base": float("nan"),
        "base ": float("inf"),
        "base  ": -1.0,
        "layout": larger,
        "layout ": wider,
        "layout   ": dataclasses.replace(layout, group_size=1 << 20),
    }


def prepared_lies(rng: np.random.Generator, prepared: PackedMatrix) -> dict[str, Any]:
    """The same one step later."""

    def changed(table: npt.NDArray[Any], value: int) -> npt.NDArray[Any]:
        copy = table.copy()
        copy.reshape(-1)[rng.integers(copy.size)] = value
        return copy

    assert prepared.permutation is not None
    return {
        "tiles": changed(prepared.tiles, -1),
        "tiles ": changed(prepared.tiles, prepared.code_bytes - 63),
        "tiles  ": prepared.tiles[:-1],
        "tiles   ": np.repeat(prepared.tiles, 2)[::2],
        "cells": changed(prepared.cells, 7),
        "cells ": changed(prepared.cells, 2**31 - 1),
        "cells  ": changed(prepared.cells, -28),
        "cells   ": prepared.cells[:, :-1],
        "cells    ": prepared.cells.astype(np.int64),
        "cells     ": prepared.cells[:, ::-1].copy(),
        "tiles    ": prepared.tiles + np.array([0, 16]),
        "entries": prepared.entries[:-1],
        "entries ": prepared.entries.astype(np.int16),
        "entries  ": np.repeat(prepared.entries, 2)[::2],
        "entries   ": prepared.entries[None],
        "scale_table": prepared.scale_table[:15],
        "windows": prepared.windows[1:],
        "windows ": prepared.windows.astype(np.int16),
        "windows  ": np.repeat(prepared.windows, 2, axis=0)[::2],
        "code_bytes": len(prepared.buffer) + 1,
        "code_bytes ": 0,
        "permutation": changed(prepared.permutation, -1),
        "permutation ": changed(prepared.permutation, len(prepared.permutation)),
        "permutation  ": prepared.permutation[1:],
        "buffer": prepared.buffer[: prepared.code_bytes - 1],
    }


def lying_tables() -> list[str]:
    """Lies that were believed; a width may change without a lie being told if it stays the same."""
    believed = []
    for seed in range(15):
        tensor = random_tensor(seed, (40, 150))
        for field, value in lies(np.random.default_rng(seed), tensor).items():
            try:
                run_guarded(dataclasses.replace(tensor, **{field.strip(): value}), 1 + seed % 9)
            except DataError:
                continue
            if not (field == "widths" and np.array_equal(value, tensor.widths)):
                believed.append(f"{seed} {field}")
        prepared = prepare(tensor)
        for field, value in prepared_lies(np.random.default_rng(seed), prepared).items():
            try:
                dataclasses.replace(prepared, **{field.strip(): value})
            except DataError:
                continue
            believed.append(f"{seed} {field}")
    return believed


def test_kernels_stay_inside_their_memory() -> None:
    in_a_process_of_its_own(THIS + "sound()")


def test_a_step_too_far_is_noticed() -> None:
    """Or the other tests would prove nothing."""
    code = "from support.products import guarded; import ctypes; a = guarded(8); ctypes.string_at(a.ctypes.data, 9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=TESTS, capture_output=True).returncode < 0


def test_damaged_files_do_not_crash() -> None:
    refused = int(in_a_process_of_its_own(THIS + "print(damaged_bytes())"))
    assert 60 < refused < 200


def test_lying_tables_are_refused() -> None:
    assert in_a_process_of_its_own(THIS + "print(lying_tables())") == "[]\n"


def test_modes_and_paths_are_checked() -> None:
    matrix = prepare(random_tensor(0, (40, 100)))
    with pytest.raises(UsageError, match="int8, int16, fp32"):
        Product(matrix, "int4")
    with pytest.raises(UsageError, match="generic"):
        Product(matrix, path="sse9")


def test_equal_inputs_share_a_key_and_others_do_not() -> None:
    tensor = random_tensor(0, (40, 100), [4])
    same = dataclasses.replace(random_tensor(1, (50, 100), [2]), permutation=tensor.permutation)
    assert prepare(tensor).input_key == prepare(same).input_key
    x, out = np.ones((2, 100), np.float32), np.empty((2, 50), np.float32)
    one, other = Product(prepare(tensor)), Product(prepare(same))
    activations, work = guarded(one.activation_bytes(2)), np.empty(one.work_bytes(2), np.uint8)
    one.quantize(x.ctypes.data, 2, activations.ctypes.data, work.ctypes.data)
    other.multiply(activations.ctypes.data, out.ctypes.data, 2, work.ctypes.data, 0, 4)
    np.testing.assert_array_equal(out, product(prepare(same), x, "int8"))
    for third in (random_tensor(2, (40, 100), [4]), random_tensor(0, (40, 100), [4, 16])):
        assert prepare(tensor).input_key != prepare(third).input_key


def test_copies_have_addresses_of_their_own() -> None:
    tensor = random_tensor(0, (40, 100))
    x = np.ones((1, 100), np.float32)
    original = prepare(tensor)
    product_of(original, "int8")
    expected = product(original, x, "int8")
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert copied.fields[0] == copied.buffer.ctypes.data != original.fields[0]
        np.testing.assert_array_equal(product(copied, x, "int8"), expected)
        assert not copied.products


def test_tables_are_small_and_read_only() -> None:
    tensor = random_tensor(0, (512, 1024), [4])
    prepared = prepare(tensor)
    assert np.shares_memory(prepared.buffer, tensor.buffer)
    groups = 512 * 1024 // 64
    assert prepared.entries.size == groups
    assert prepare(random_tensor(0, (512, 1024), [6])).entries.size == 2 * groups
    for each in (prepared, prepare(random_tensor(0, (512, 1024), [2, 6]))):
        assert each.table_bytes - each.entries.size < 0.04 * len(tensor.buffer)
    tables = (prepared.tiles, prepared.cells, prepared.ends, prepared.entries, prepared.windows, prepared.fields)
    for table in (*tables, prepared.permutation):
        assert table is not None and not table.flags.writeable
