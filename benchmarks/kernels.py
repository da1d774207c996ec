"""Kernels against the memory they read from and against torch: matrix times vector, with two lengths of rows, times
batch, on two threads.

    python benchmarks/kernels.py --json kernels.json

Prints Markdown tables; `--json` writes the same figures under the same names. All contenders of a table take turns, one
call each a round. Of products with one token there are two tables: of each contender's fastest call, and of medians,
where ratios are the median of the rounds' ratios. Otherwise the fastest call counts. Weights rotate through copies that
together are three times as large as the last cache. GB/s count every byte that a kernel reads: codes, scales,
zero-points and its tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from reporting import new_file, origin, write_json

from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.grid import Rounded, row_widths
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleWindows
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.matmul import Runner
from nash_swarm.quantizers.runtime.cpu.prepared import prepare
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.quantizers.runtime.cpu.simd.vectors import add_floats, load_floats, prefetch, store_floats
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled, share_rows

WIDTHS = (2, 3, 4, 5, 6, 8)
SHARES = (0.20, 0.35, 0.25, 0.10, 0.06, 0.04)
"""Of the widths in the mixed matrix: 3.64 bits on average, drawn anew for every tile and group."""
GROUP = 64
_IN_A_ROW = 10
"""Calls of a turn where threads are compared."""

Row = dict[str, Any]
Tables = dict[str, list[Row]]
"""By what is added to the name of the part."""
Rounds = dict[str, npt.NDArray[np.float64]]
"""Seconds of each contender's calls, round by round."""
Task = Callable[[], object]


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


def last_cache() -> int:
    """Bytes of the largest cache, 64 MB if lscpu cannot tell."""
    try:
        found = subprocess.run(["lscpu", "-B", "-J", "-C"], capture_output=True, text=True, check=True)
        return max(int(cache["one-size"]) for cache in json.loads(found.stdout)["caches"])
    except (OSError, subprocess.CalledProcessError, KeyError, ValueError):
        return 64 << 20


class Weights:
    """Copies of one matrix, each in memory of its own, and a runner for each."""

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
        windows = ScaleWindows.read(np.full(rows, 32, np.uint8), levels)
        scales = windows.codes(rng.integers(0, 16, by_row.shape).astype(np.uint8), by_row)
        zeros = np.full_like(scales, count // 2)
        tensor = PackedTensor.pack(
            Rounded(codes, scales, zeros, 1.0), agents, layout, rng.permutation(columns), (*WIDTHS, 16)
        )
        size = whole_lines(len(tensor.buffer))
        copies = aligned_empty(-(-room // size) * size).reshape(-1, size)[:, : len(tensor.buffer)]  # as in a model
        copies[:] = tensor.buffer
        self.runners = [Runner(prepare(dataclasses.replace(tensor, buffer=copy)), mode, path) for copy in copies]
        prepared = self.runners[0].prepared
        self._turn = itertools.cycle(self.runners)
        self.read_bytes = tensor.code_bytes + prepared.table_bytes
        self.tiles = layout.row_tiles

    def task(self, x: torch.Tensor) -> Task:
        """Product with x, the next copy at every call."""
        runner, tokens = self.runners[0], len(x)
        out = torch.empty(tokens, runner.prepared.layout.rows)
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
        out = torch.empty(tokens, runner.prepared.layout.rows)
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


def timed(tasks: dict[str, Task], seconds: float, calls: int = 1) -> dict[str, list[float]]:
    """Seconds of each task's calls, in rounds; of several calls a round all but the first one's."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < 5:
        for name, task in tasks.items():
            for call in range(calls):
                start = time.perf_counter()
                task()
                if call > 0 or calls == 1:
                    times[name].append(time.perf_counter() - start)
        rounds += 1
    return times


def fastest(tasks: dict[str, Task], seconds: float) -> dict[str, float]:
    """Seconds of the fastest call of each task, in rounds."""
    return {name: min(times) for name, times in timed(tasks, seconds).items()}


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


def vector(rows: int, columns: int, room: int, path: str | None, seconds: float) -> Tables:
    """Matrix times vector."""
    x = torch.randn(1, columns)
    ours: dict[str, Weights] = {f"int{bits}": Weights(rows, columns, bits, room, path, "int8") for bits in WIDTHS}
    ours["mixed"] = Weights(rows, columns, "mixed", room, path, "int8")
    normal: dict[str, int | str] = {"int2": 2, "int3": 3, "int4": 4, "int5": 5, "mixed": "mixed"}
    ours |= {
        f"{name}, normal levels": Weights(rows, columns, widths, room, path, "int8", "normal")
        for name, widths in normal.items()
    }
    ours["int4, fp32 activations"] = Weights(rows, columns, 4, room, path, "fp32")
    size, reader = reading(room)
    others = torch_tasks(rows, columns, room)
    tasks = {"read": reader, **{name: weights.task(x) for name, weights in ours.items()}, **others}
    times = {name: np.array(calls) for name, calls in timed(tasks, seconds).items()}
    sizes = {"read": size, **{name: weights.read_bytes for name, weights in ours.items()}}
    fastest_calls = {name: calls.min(keepdims=True) for name, calls in times.items()}
    return {"": vector_table(fastest_calls, sizes, list(others)), ", medians": vector_table(times, sizes, list(others))}


def vector_table(times: Rounds, sizes: dict[str, int], others: list[str]) -> list[Row]:
    """Medians over rounds, of times and of ratios alike.

    Args:
        times: seconds of every contender.
        sizes: bytes that it reads, of plain reading and our contenders.
        others: those to be compared with.
    """
    table: list[Row] = []
    pace = times["read"] / sizes["read"]
    for name, calls in times.items():
        row: Row = {"kernel": name, "us": float(np.median(calls)) * 1e6}
        if name in sizes:
            row["GB/s"] = sizes[name] / float(np.median(calls)) / 1e9
            row["share of read"] = float(np.median(sizes[name] * pace / calls))
        if name != "read":
            row |= {f"x {other}": float(np.median(times[other] / calls)) for other in others}
        table.append(row)
    return [*table, equal_bytes(times, sizes)]


def equal_bytes(times: Rounds, sizes: dict[str, int]) -> Row:
    """The mixed matrix's time as a multiple of that of a uniform one of as many bytes, between 3 and 4 bits."""
    low, mixed, high = (sizes[name] for name in ("int3", "mixed", "int4"))
    expected = times["int3"] + (times["int4"] - times["int3"]) * (mixed - low) / (high - low)
    return {
        "kernel": "uniform of the mixed one's bytes",
        "us": float(np.median(expected)) * 1e6,
        "mixed takes x": float(np.median(times["mixed"] / expected)),
    }


def batches(rows: int, columns: int, room: int, path: str | None, seconds: float) -> Tables:
    """Matrix times batch."""
    weights = {name: Weights(rows, columns, bits, room, path, "int8") for name, bits in
               (("int2", 2), ("int3", 3), ("int4", 4), ("int8", 8), ("mixed", "mixed"))}  # fmt: skip
    weights["int4, normal levels"] = Weights(rows, columns, 4, room, path, "int8", "normal")
    weights["int4, fp32 activations"] = Weights(rows, columns, 4, room, path, "fp32")
    dense = torch.randn(rows, columns)
    half = dense.bfloat16()
    table = []
    for tokens in (32, 128, 512):
        x = torch.randn(tokens, columns)
        tasks = {name: held.task(x) for name, held in weights.items()}
        tasks["inputs rounded, no product"] = weights["int4"].rounding_task(x)
        tasks["torch fp32"] = partial(torch.nn.functional.linear, x, dense)
        tasks["torch bf16"] = partial(torch.nn.functional.linear, x.bfloat16(), half)
        times = fastest(tasks, seconds)
        table += [
            {"batch": tokens, "kernel": name, "ms": times[name] * 1e3,
             "time / torch fp32": times[name] / times["torch fp32"],
             "time / torch bf16": times[name] / times["torch bf16"]}
            for name in tasks
        ]  # fmt: skip
    return {"": table}


def two_threads(rows: int, columns: int, room: int, path: str | None, seconds: float) -> Tables:
    """One and two threads; the first two rows say what two get out of the memory, and out of the processor alone.

    A matrix that does not take turns with others stays in the last cache, as far as it fits. In a model none does.
    Every contender makes several calls in its turn, of which the first does not count: in a step of a model, too, the
    product before has just been shared out.
    """
    x = torch.randn(1, columns)
    table = []
    sizes: dict[str, tuple[int, int | str]] = {
        "int4": (rows, 4), "mixed": (rows, "mixed"), f"int4, {rows // 8} rows": (rows // 8, 4),
    }  # fmt: skip
    kinds = {name: Weights(height, columns, bits, room, path, "int8") for name, (height, bits) in sizes.items()}
    kinds["int4, always the same matrix"] = Weights(rows, columns, 4, 1, path, "int8")
    size, reader = shared_reading(room)
    # a few rows of the matrix times many tokens stay in the cache
    inside = Weights(512, columns, 4, 1, path, "int8").shared_task(torch.randn(64, columns))
    tasks: dict[str, tuple[int, Task, Task | None]] = {"read": (size, reader, None), "compute": (0, inside, None)}
    tasks |= {
        name: (each.read_bytes, each.shared_task(x), each.shared_task(x, python=True)) for name, each in kinds.items()
    }

    def on(threads: int, task: Task) -> Task:
        def run() -> None:
            torch.set_num_threads(threads)
            task()

        return run

    for name, (count, task, python) in tasks.items():
        contenders = {"1": on(1, task), "2": on(2, task)} | ({"GIL": on(2, python)} if python else {})
        times = timed(contenders, seconds, calls=_IN_A_ROW)
        torch.set_num_threads(1)
        best = {key: min(value) for key, value in times.items()}
        median = {key: float(np.median(value)) for key, value in times.items()}
        row: Row = {"kernel": name, "us, 1 thread": best["1"] * 1e6, "us, 2 threads": best["2"] * 1e6}
        if count:
            row |= {"GB/s, 1 thread": count / best["1"] / 1e9, "GB/s, 2 threads": count / best["2"] / 1e9}
        row |= {"speed-up": best["1"] / best["2"], "speed-up, medians": median["1"] / median["2"]}
        if python:
            row |= {
                "with the GIL": best["1"] / best["GIL"], "with the GIL, medians": median["1"] / median["GIL"],
            }  # fmt: skip
        table.append(row)
    return {"": table}


def show(title: str, rows: Sequence[Row]) -> None:
    """A Markdown table of whatever the rows hold."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        print(f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", type=new_file, help="write all figures here")
    parser.add_argument("--path", choices=paths.NAMES, help="instructions; the best ones by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each table or batch size")
    parser.add_argument("--only", choices=("vector", "long", "batch", "threads"), help="one of the four parts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    cache = last_cache()
    settings = (3 * cache, arguments.path, arguments.seconds)
    results: dict[str, Any] = {
        **origin("torch", "numpy", "numba", "llvmlite"),
        "last cache MB": cache / 2**20,
        "instructions": paths.NAMES[paths.choose(arguments.path)],
    }
    parts: dict[str, tuple[str, Callable[[], Tables]]] = {
        "vector": ("4096 x 4096 times vector", lambda: vector(4096, 4096, *settings)),
        "long": ("1024 x 16384 times vector", lambda: vector(1024, 16384, *settings)),
        "batch": ("4096 x 4096 times batch", lambda: batches(4096, 4096, *settings)),
        "threads": ("11008 x 4096 times vector", lambda: two_threads(11008, 4096, *settings)),
    }
    print(f"`{results['command']}`; {results['versions']}, {results['machine']}")
    for name, (title, part) in parts.items():
        if arguments.only in (None, name):
            for which, rows in part().items():
                results[name + which] = rows
                show(f"{title}, groups of {GROUP}{which}", rows)
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
