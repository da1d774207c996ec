"""Packed matrices for tests of the kernels, memory that must not be overrun, and a comparison for other processes."""

from __future__ import annotations

import ctypes
import itertools
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.names import LEVELS, Levels, Mode
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix, prepare
from nash_swarm.quantizers.runtime.cpu.product import Product
from nash_swarm.testing.products import multiply
from support.layouts import rounded

WIDTHS = (2, 3, 4, 5, 6, 8, 16)


def random_tensor(
    seed: int,
    shape: tuple[int, int],
    widths: Sequence[int] = WIDTHS,
    *,
    group_size: int = 64,
    ordered: bool = True,
    extreme: bool = False,
    levels: Levels = "uniform",
) -> PackedTensor:
    """Random codes and zero-points, `widths` drawn anew for every tile and group."""
    rng = np.random.default_rng(seed)
    layout = cut("m", "linear", shape, "tile", group_size=group_size, ordered=ordered, levels=levels)
    agents = rng.choice(np.array(widths, np.uint8), layout.agents)
    order = rng.permutation(shape[1]) if ordered else None
    return layout.format.pack(rounded(rng, layout, agents, extreme), agents, layout, order, WIDTHS)


def guarded(size: int) -> npt.NDArray[np.uint8]:
    """Memory right before a page that may not be touched: one byte too far ends the process."""
    page = mmap.PAGESIZE
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(whole.ctypes.data + pages * page), ctypes.c_size_t(page), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    return whole[pages * page - size : pages * page]


def product(
    matrix: PackedMatrix, x: npt.NDArray[np.float32], mode: Mode, path: str | None = None, room: Any = None
) -> npt.NDArray[np.float32]:
    """The whole product; `room` makes the memory for outputs, activations and the kernel's own use."""
    assert x.flags.c_contiguous and x.dtype == np.float32
    room = room or (lambda size: np.full(size, 255, np.uint8))
    runner = Product(matrix, mode, path)
    tokens = len(x)
    out = room(4 * tokens * matrix.layout.rows)
    activations, work = room(runner.activation_bytes(tokens)), room(runner.work_bytes(tokens))
    runner.run(x.ctypes.data, out.ctypes.data, tokens, activations.ctypes.data, work.ctypes.data)
    return out.view(np.float32).reshape(tokens, matrix.layout.rows).copy()


def differences(path: str | None = None) -> list[str]:
    """Where the kernels differ from the reference on some small matrices; for processes with other CPU features."""
    found = []
    for seed, (shape, group_size, tokens) in enumerate(
        [((33, 130), 64, 1), ((16, 64), 32, 2), ((40, 200), 128, 9), ((17, 31), 32, 33)]
    ):
        for extreme, levels in itertools.product((False, True), LEVELS):
            tensor = random_tensor(seed, shape, group_size=group_size, extreme=extreme, levels=levels)
            x = np.random.default_rng(seed).standard_normal((tokens, shape[1])).astype(np.float32)
            for mode in ("int8", "fp32"):
                got = product(prepare(tensor), x, mode, path)  # type: ignore[arg-type]
                if not np.array_equal(got, multiply(tensor, x, mode)):
                    found.append(f"{shape}, groups of {group_size}, {tokens} tokens, {mode}, {levels} levels")
    return found
