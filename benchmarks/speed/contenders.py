"""Contenders of `kernels.py`: our kernels on copies of a matrix, plain reading, and what torch offers."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.grid import Rounded, row_widths
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.matrix import prepare
from nash_swarm.quantizers.runtime.cpu.product import Product
from nash_swarm.quantizers.runtime.cpu.simd.vectors import add_floats, load_floats, prefetch, store_floats
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled
from nash_swarm.sharing import share_rows

WIDTHS = (2, 3, 4, 5, 6, 8)
SHARES = (0.20, 0.35, 0.25, 0.10, 0.06, 0.04)
"""Of the widths in the mixed matrix: 3.64 bits on average, drawn anew for every tile and group."""
GROUP = 64
Task = Callable[[], object]


class Weights:
    """Copies of one matrix, each in memory of its own, and a product for each."""

    def __init__(
        self, rows: int, columns: int, widths: int | str, room: int, path: str | None, mode: Any,
        levels: Levels = "uniform",
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(0)
        layout = cut("matrix", "linear", (rows, columns), "tile", group_size=GROUP, ordered=True, levels=levels)
        if isinstance(widths, str):
            agents = rng.choice(np.array(WIDTHS, np.uint8), layout.agents, p=SHARES)
        else:
            agents = np.full(layout.agents, widths, np.uint8)
        count = 2 ** int(agents.min())
        codes = rng.integers(0, count, (rows, columns)).astype(np.uint8)
        by_row = row_widths(layout.expand(agents), layout)
        ranges = ScaleRanges.read(np.full(rows, 32, np.uint8), levels)
        scales = ranges.codes(rng.integers(0, 16, by_row.shape).astype(np.uint8), by_row)
        zeros = np.full_like(scales, count // 2)
        tensor = PackedTensor.pack(
            Rounded(codes, scales, zeros, 1.0), agents, layout, rng.permutation(columns), (*WIDTHS, 16)
        )
        size = whole_lines(len(tensor.buffer))
        copies = aligned_empty(-(-room // size) * size).reshape(-1, size)[:, : len(tensor.buffer)]  # as in a model
        copies[:] = tensor.buffer
        self.runners = [Product(prepare(dataclasses.replace(tensor, buffer=copy)), mode, path) for copy in copies]
        prepared = self.runners[0].matrix
        self._turn = itertools.cycle(self.runners)
        self.read_bytes = tensor.code_bytes + prepared.table_bytes
        self.tiles = layout.row_tiles

    def task(self, x: torch.Tensor) -> Task:
        """Product with x, the next copy at every call."""
        runner, tokens = self.runners[0], len(x)
        out = torch.empty(tokens, runner.matrix.layout.rows)
        room = [torch.empty(size(tokens), dtype=torch.uint8) for size in (runner.activation_bytes, runner.work_bytes)]
        addresses = (x.data_ptr(), out.data_ptr(), tokens, *(part.data_ptr() for part in room))

        def run(keep: object = (x, out, room)) -> None:
            next(self._turn).run(*addresses)

        return run

    def rounding_task(self, x: torch.Tensor) -> Task:
        """Only the inputs of the product."""
        runner, tokens = self.runners[0], len(x)
        room = torch.empty(runner.activation_bytes(tokens), dtype=torch.uint8)
        return lambda keep=(x, room): runner.share_quantize(x.data_ptr(), tokens, room.data_ptr(), 1)

    def shared_task(self, x: torch.Tensor, python: bool = False) -> Task:
        """The same with the tiles shared out over torch's threads, if wanted by threads that need the GIL."""
        runner, tokens = self.runners[0], len(x)
        out = torch.empty(tokens, runner.matrix.layout.rows)
        inputs = torch.empty(runner.activation_bytes(tokens), dtype=torch.uint8)
        work = torch.empty(runner.work_bytes(tokens), dtype=torch.uint8)
        smallest = 16

        def run() -> None:
            runner = next(self._turn)
            runner.quantize(x.data_ptr(), tokens, inputs.data_ptr(), work.data_ptr())
            if not python:
                runner.share(inputs.data_ptr(), out.data_ptr(), tokens, smallest)
                return

            def share(first: int, past: int) -> None:
                room = np.empty(runner.work_bytes(tokens), np.uint8)
                runner.multiply(inputs.data_ptr(), out.data_ptr(), tokens, room.ctypes.data, first, past)

            share_rows(self.tiles, share, smallest=smallest)

        return run


@njit("void(int64, int64, int64)", nogil=True)
def read(start: int, past: int, out: int) -> None:
    """Sum all vectors from address start to past, a multiple of 256 bytes."""
    a, b, c, d = load_floats(start), load_floats(start), load_floats(start), load_floats(start)
    for at in range(start, past, 256):
        for line in range(0, 256, 64):
            prefetch(at + 8192 + line)
        a, b = add_floats(a, load_floats(at)), add_floats(b, load_floats(at + 64))
        c, d = add_floats(c, load_floats(at + 128)), add_floats(d, load_floats(at + 192))
    store_floats(out, add_floats(add_floats(a, b), add_floats(c, d)))


@njit(f"void({', '.join(['int64'] * 9)})", nogil=True)
def read_pages(start: int, size: int, out: int, _a: int, _b: int, _c: int, _work: int, first: int, past: int) -> None:
    """`read` pages `first` to `past` of `size` bytes each."""
    read(start + first * size, start + past * size, out + 64 * first)


def reading(room: int) -> tuple[int, Task]:
    """Bytes, and the task that reads them: the next of several runs of memory at every call."""
    size = 16 << 20
    memory = np.ones(-(-room // size) * size // 4, np.float32)  # on large pages, as the kernels' weights are
    out = torch.empty(16)
    turn = itertools.cycle(range(memory.ctypes.data, memory.ctypes.data + memory.nbytes, size))

    def run(keep: object = (memory, out)) -> None:
        start = next(turn)
        read(start, start + size, out.data_ptr())

    return size, run


def shared_reading(room: int) -> tuple[int, Task]:
    """As `reading`, shared between as many threads as torch has."""
    size, page = 24 << 20, 1 << 12
    memory = np.ones(-(-room // size) * size // 4, np.float32)
    sums = torch.empty(size // page, 16)
    turn = itertools.cycle(range(memory.ctypes.data, memory.ctypes.data + memory.nbytes, size))

    def run(keep: object = (memory, sums)) -> None:
        start = next(turn)
        share_compiled(read_pages, (start, page, sums.data_ptr(), 0, 0, 0), size // page)

    return size, run


def torch_tasks(rows: int, columns: int, room: int) -> dict[str, Task]:
    """What torch offers for one token."""
    x = torch.randn(1, columns)
    half = x.bfloat16()
    weight = torch.randn(rows, columns)

    def rotating(call: Callable[..., object], *operands: torch.Tensor) -> Task:
        size = sum(operand.numel() * operand.element_size() for operand in operands)
        copies = [[operand.clone() for operand in operands] for _ in range(-(-room // size))]
        turn = itertools.cycle(copies)
        return lambda: call(*next(turn))

    tasks = {
        "torch fp32": rotating(lambda w: torch.nn.functional.linear(x, w), weight),
        "torch bf16": rotating(lambda w: torch.nn.functional.linear(half, w), weight.bfloat16()),
    }
    try:
        codes = torch.randint(0, 16, (rows, columns), dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = torch.rand(columns // GROUP, rows, 2).bfloat16()
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
        tasks["_weight_int4pack_mm_for_cpu"] = rotating(lambda w, s: multiply(half, w, GROUP, s), packed, scales)
        tasks["_weight_int4pack_mm_for_cpu"]()
    except (AttributeError, RuntimeError) as error:
        tasks.pop("_weight_int4pack_mm_for_cpu", None)
        print(f"skipped _weight_int4pack_mm_for_cpu: {error}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and still what torch has
            models = []
            for _ in range(-(-room // weight.numel())):
                linear = torch.nn.Linear(columns, rows, bias=False)
                models.append(torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), dtype=torch.qint8))
        turn = itertools.cycle(models)
        tasks["torch dynamic int8"] = lambda: next(turn)(x)
        tasks["torch dynamic int8"]()
    except (AttributeError, RuntimeError) as error:
        tasks.pop("torch dynamic int8", None)
        print(f"skipped torch dynamic int8: {error}")
    return tasks
