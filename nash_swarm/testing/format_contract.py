"""The contract of every storage format, as one function that a plug-in's own tests can call."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.names import Granularity
from nash_swarm.quantizers.formats.base import Floats, Format, Layout, Packed
from nash_swarm.quantizers.formats.native.grid import SHRINKS

_KINDS = ("linear", "conv1d", "embedding", "tied")


def check_format(
    format: Format[Any], *, granularity: Granularity = "tile", examples: int = 20, seed: int = 0, slack: float = 0.1
) -> None:
    """Hold `format` to the contract on random matrices of random shapes and widths.

    What is packed takes the bytes that `memory` and `fixed_bytes` predict (the rounding up of each width's run may be
    less than `fixed_bytes` allows for: a byte a strategy), and reads back to the same sections; layouts come back from
    their line and their values; the matrix that is unpacked is the one that was rounded, as a whole and row by row;
    the error table is what rounding to each strategy errs, agent by agent; bytes that are cut short or longer, and
    altered lines, raise DataError; columns are permuted where, and only where, the format permits.

    Args:
        format: an instance, with the choices to test.
        granularity: of the cells.
        examples: number of matrices.
        seed: of the matrices.
        slack: how far, relatively, the total errors of the table may be from those of rounding, and a fifth of what
            those of one cell may be: scales that share bits
            on disk are chosen together, which the table need not know of.

    Raises:
        AssertionError: a rule is broken; the message says which, and the matrix's number.
    """
    rng = np.random.default_rng(seed)
    for number in range(examples):
        label = f"{format.name}, matrix {number} of seed {seed}"
        rows, columns = (int(size) for size in rng.integers(1, 100, 2))
        layout = format.cut(
            "matrix", _KINDS[rng.integers(4)], (rows, columns), granularity,  # type: ignore[arg-type]
            ordered=format.permutes and bool(rng.random() < 0.5), start=int(rng.integers(3)),
        )  # fmt: skip
        count = int(rng.integers(1, len(format.strategies) + 1))
        strategies = tuple(sorted(rng.choice(format.strategies, count, replace=False).tolist()))
        weight = rng.standard_normal((rows, columns)).astype(np.float32)
        order = rng.permutation(columns) if layout.ordered else None
        _check_layout(label, format, layout)
        _check_bytes(label, rng, weight, layout, order, strategies)
        _check_errors(label, rng, weight, layout, strategies, slack)


def round_to_nearest(
    format: Format[Any], weight: Floats, widths: npt.NDArray[np.uint8], layout: Layout, costs: Floats | None = None
) -> tuple[Any, Floats]:
    """A matrix, float32 (rows, columns), on the format's grid without error feedback: as `Format.pack` takes it, and
    its values. `costs`: of errors in each column, float32 (columns,)."""
    work = weight.copy()
    grid = format.grid(weight, widths, layout, np.ones(layout.columns, np.float32) if costs is None else costs, SHRINKS)
    for start in range(0, layout.columns, grid.group_size):
        stop = min(start + grid.group_size, layout.columns)
        grid.round_group(work, start, stop, None, np.zeros((layout.rows, stop - start), np.float32))
    return grid.rounded(work), work


def _check_layout(label: str, format: Format[Any], layout: Layout) -> None:
    from nash_swarm.quantizers.formats.known import layout_of

    for bias in (False, True):
        again, found = type(layout).parse(layout.name, layout.text(bias))
        _require(label, found == bias and again == dataclasses.replace(layout, start=0), "text() is not read back")
    _require(label, layout_of(layout.values()) == layout, "values() are not read back")
    _require(label, layout.format == format, "the layout is of another format")
    _require(label, layout.expand(np.zeros(layout.agents, np.uint8)).shape == layout.units, "expand() gives no `units`")
    _refused(label, lambda: type(layout).parse(layout.name, layout.text() + "?"), "an altered line")


def _check_bytes(
    label: str, rng: np.random.Generator, weight: Floats, layout: Layout, order: Any, strategies: tuple[int, ...]
) -> None:
    format = layout.format
    choices = rng.integers(0, len(strategies), layout.agents)
    widths = np.array(strategies, np.uint8)[choices]
    rounded, values = round_to_nearest(format, weight, layout.expand(widths), layout)
    packed: Packed = format.pack(rounded, widths, layout, order, strategies)
    memory = layout.memory(strategies)
    _require(label, memory.shape == (layout.agents, len(strategies)) and memory.dtype == np.int64, "memory is no table")
    _require(label, bool((np.diff(memory, axis=1) >= 0).all()), "wider strategies cost less")
    bits = int(np.take_along_axis(memory, choices[:, None], axis=1).sum())
    spare = layout.fixed_bytes(len(strategies)) - (len(packed.buffer) - bits / 8)
    _require(label, 0 <= spare <= len(strategies), f"{spare} bytes of those predicted are not there")
    again = format.read(packed.buffer.copy(), layout, strategies)
    _require(label, np.array_equal(again.widths, layout.expand(widths)), "widths are not read back")
    stored = np.arange(layout.columns) if order is None else order
    _require(label, np.array_equal(again.permutation, stored), "the order of columns is not read back")
    matrix = again.dequantize()
    expected = np.empty_like(matrix)
    expected[:, stored] = values
    close = np.abs(matrix - expected) <= 1e-3 * np.abs(weight).max()  # half precision
    _require(label, bool(close.all()), "what is unpacked is not what was rounded")
    wanted = rng.integers(0, layout.rows, 5)
    some = np.empty((5, layout.columns), np.float32)
    again.read_rows(wanted, some, 0, 5)
    _require(label, np.allclose(some, matrix[wanted], rtol=1e-6, atol=1e-6), "rows are not those of the matrix")
    kept = int(rng.integers(0, len(packed.buffer)))
    _refused(label, lambda: format.read(packed.buffer[:kept].copy(), layout, strategies), f"{kept} bytes of it")
    longer = np.concatenate([packed.buffer[:1], packed.buffer])
    _refused(label, lambda: format.read(longer, layout, strategies), "a byte more")
    _refused(label, lambda: format.read(packed.buffer[::2], layout, strategies), "every second byte")


def _check_errors(
    label: str, rng: np.random.Generator, weight: Floats, layout: Layout, strategies: tuple[int, ...], slack: float
) -> None:
    costs = rng.uniform(0.5, 2, layout.columns).astype(np.float32)
    # two terms that add up to the costs in every row
    rows = np.stack([np.full(layout.rows, 0.25, np.float32), np.full(layout.rows, 0.75, np.float32)])
    table = layout.format.errors(weight, rows, np.stack([costs, costs]), layout, strategies)
    fits = table.shape == (layout.agents, len(strategies)) and table.dtype == np.float32 and bool((table >= 0).all())
    _require(label, fits, "the error table is no table of errors")
    agents = layout.expand(np.arange(layout.agents))
    of_weight = np.repeat(np.repeat(agents, layout.unit[0], axis=0), layout.unit[1], axis=1)
    of_weight = of_weight[: layout.rows, : layout.columns]
    for column, bits in enumerate(strategies):
        widths = np.full(layout.units, bits, np.uint8)
        _, values = round_to_nearest(layout.format, weight, widths, layout, costs)
        errors = costs * np.square(values.astype(np.float64) - weight)
        brute = np.bincount(of_weight.ravel(), errors.ravel(), layout.agents)
        tiny = 1e-9 * layout.weights
        total = float(table[:, column].sum(dtype=np.float64))
        apart = abs(total - brute.sum()) / (brute.sum() + tiny)
        _require(label, apart <= slack, f"the errors of {bits} bits are {apart:.1%} from those of rounding")
        # cells of a few weights may be exact in the table and not with scales that are shared
        usual = brute.sum() / layout.weights * np.bincount(of_weight.ravel(), minlength=layout.agents)
        near = np.abs(table[:, column] - brute) <= 5 * slack * (brute + usual) + tiny
        _require(label, bool(near.all()), f"the errors of {bits} bits of an agent are not those of rounding")


def _refused(label: str, call: Any, what: str) -> None:
    try:
        call()
    except DataError:
        return
    _require(label, False, f"{what} did not raise DataError")


def _require(label: str, holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"{label}: {message}")
