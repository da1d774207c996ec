"""The contract of every quantizer, as one function that a plug-in's own tests can call."""

from __future__ import annotations

import copy
from dataclasses import astuple
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.names import GRANULARITIES
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.formats.native.layout import HALF, TILE_ROWS, TensorLayout
from nash_swarm.quantizers.rounding.base import Quantizer

KINDS = ("even", "heavy tails", "one sign", "constant", "zero", "zero rows", "tiny", "huge")
"""What the weights look like."""
HESSIANS = ("none", "correlated", "singular", "dead columns", "zero")
"""What the inputs looked like."""


class _Case(NamedTuple):
    weight: npt.NDArray[np.float32]
    agent_widths: npt.NDArray[np.uint8]
    layout: TensorLayout
    hessian: npt.NDArray[np.float32] | None
    permutation: npt.NDArray[np.int64] | None
    label: str

    def round(self, quantizer: Quantizer) -> Rounded:
        return quantizer.round(self.weight, self.layout.expand(self.agent_widths), self.layout, self.hessian)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{self.label}: {message}")


def check_quantizer(quantizer: Quantizer, *, examples: int = 50, seed: int = 0) -> None:
    """Hold `quantizer` to the contract on random matrices, among them degenerate ones.

    Codes and zero-points fit their widths, scale codes a window of their row, and tiles of 16 bits are half-precision
    numbers; what is packed reads back as the grid says; the same call gives the same result and leaves its arguments
    alone; a matrix of zeros stays one; at 8 bits and without a Hessian the error is small; weights that are not finite,
    and shapes and widths that do not fit the layout, are refused.

    Args:
        quantizer: an instance, with the hyperparameters to test.
        examples: number of matrices.
        seed: of the matrices.

    Raises:
        AssertionError: a rule is broken; the message says which, and the matrix's number and kind.
    """
    rng = np.random.default_rng(seed)
    for number in range(examples):
        case = _sample(rng, f"{type(quantizer).__name__}, matrix {number} of seed {seed}")
        given = copy.deepcopy(case)
        rounded = case.round(quantizer)
        kept = all(np.array_equal(one, two) for one, two in zip(given[:4], case[:4], strict=True))  # type: ignore[arg-type]
        case.require(kept, "the quantizer changed an argument")
        _check_values(case, rounded)
        _check_packing(case, rounded)
        same = zip(astuple(rounded), astuple(case.round(quantizer)), strict=True)
        case.require(all(np.array_equal(one, two) for one, two in same), "a second call gave another result")
        _check_error(case, quantizer)
        _check_refusals(case, quantizer)


def _sample(rng: np.random.Generator, label: str) -> _Case:
    rows, columns = (int(size) for size in rng.integers(1, 100, 2))
    granularity = GRANULARITIES[rng.integers(len(GRANULARITIES))]
    layout = cut(
        "matrix", "linear", (rows, columns), granularity,
        group_size=int(rng.choice([32, 64])), ordered=bool(rng.random() < 0.5),
        levels="normal" if granularity != "parameter" and rng.random() < 0.5 else "uniform",
    )  # fmt: skip
    known = layout.format.strategies
    kind, seen = KINDS[rng.integers(len(KINDS))], HESSIANS[rng.integers(len(HESSIANS))]
    return _Case(
        _weights(rng, kind, rows, columns),
        rng.choice(np.array(known, np.uint8), layout.agents),
        layout,
        _hessian(rng, seen, columns),
        rng.permutation(columns) if layout.ordered else None,
        f"{label} ({kind} weights, {rows} x {columns}, {layout.format.name}, Hessian: {seen})",
    )


def _weights(rng: np.random.Generator, kind: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
    weight = rng.standard_normal((rows, columns))
    match kind:
        case "heavy tails":
            weight = np.clip(rng.standard_t(1.5, (rows, columns)), -100, 100)
        case "one sign":
            weight = -np.abs(weight) - 1
        case "constant":
            weight = np.full((rows, columns), weight[0, 0])
        case "zero":
            weight = np.zeros((rows, columns))
        case "zero rows":
            weight[rng.random(rows) < 0.5] = 0
        case "tiny":
            weight *= 1e-40
        case "huge":
            weight *= 1e4
    return weight.astype(np.float32)


def _hessian(rng: np.random.Generator, kind: str, columns: int) -> npt.NDArray[np.float32] | None:
    inputs = rng.standard_normal((4 * columns + 8, columns)) @ rng.standard_normal((columns, columns))
    match kind:
        case "none":
            return None
        case "singular":
            inputs = inputs[:2]
        case "dead columns":
            inputs[:, rng.random(columns) < 0.5] = 0
        case "zero":
            inputs *= 0
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def _check_values(case: _Case, rounded: Rounded) -> None:
    layout, widths = case.layout, case.layout.expand(case.agent_widths)
    by_group = np.full((layout.rows, layout.groups), 8)
    by_weight = widths
    if isinstance(layout, TensorLayout):
        by_group = np.repeat(widths, TILE_ROWS, axis=0)[: layout.rows]
        by_weight = np.repeat(by_group, layout.group_size, axis=1)[:, : layout.columns]
    for name, array, wide in (
        ("codes", rounded.codes, by_weight), ("zeros", rounded.zeros, by_group), ("scale_codes", rounded.scale_codes, 0)
    ):  # fmt: skip
        shape = (layout.rows, layout.columns if name == "codes" else layout.groups)
        case.require(array.dtype == np.uint8 and array.shape == shape, f"{name} is {array.dtype} {array.shape}")
        fits = name == "scale_codes" or bool((array < np.exp2(np.where(wide == HALF, 8, wide))).all())
        case.require(fits, f"{name} do not fit their widths")
    exact = by_weight == HALF
    halves = rounded.halves
    case.require(halves is not None or not exact.any(), "16-bit tiles have no half-precision values")
    if halves is not None:
        case.require(halves.dtype == np.float16 and bool(np.isfinite(halves[exact]).all()), "the halves are not finite")


def _check_packing(case: _Case, rounded: Rounded) -> None:
    layout, strategies = case.layout, tuple(sorted(set(case.agent_widths.tolist())))
    try:
        packed = layout.format.pack(rounded, case.agent_widths, layout, case.permutation, strategies)
    except DataError as error:
        raise AssertionError(f"{case.label}: {error}") from error
    again = layout.format.read(packed.buffer, layout, strategies)
    values = again.dequantize()
    case.require(bool(np.isfinite(values).all()), "the packed matrix is not finite")
    zero_rows = ~case.weight.any(axis=1)
    case.require(not values[zero_rows].any(), "rows of zeros did not stay zero")


def _check_error(case: _Case, quantizer: Quantizer) -> None:
    wide = case._replace(agent_widths=np.full(case.layout.agents, 8, np.uint8), hessian=None)
    packed = case.layout.format.pack(wide.round(quantizer), wide.agent_widths, case.layout, case.permutation, (8,))
    weight = np.empty_like(case.weight)
    weight[:, packed.permutation] = case.weight
    span = np.maximum(case.weight.max(axis=1, initial=0), 0) - np.minimum(case.weight.min(axis=1, initial=0), 0)
    error = np.sqrt(np.square(packed.dequantize() - weight, dtype=np.float64).mean(axis=1))
    # room for scales rounded to sixteenths of an octave; matrices with denormal scales become zero
    case.require(bool((error <= 0.03 * span + 1e-30).all()), "the error at 8 bits is more than 3 % of the range")


def _check_refusals(case: _Case, quantizer: Quantizer) -> None:
    bad = case.weight.copy()
    bad.flat[0] = np.nan
    widths = case.layout.expand(case.agent_widths)
    refused = {
        "weights that are not finite": (bad, widths, case.hessian),
        "weights of another shape": (case.weight[:, :-1], widths, case.hessian),
        "weights in double precision": (case.weight.astype(np.float64), widths, case.hessian),
        "widths of another shape": (case.weight, widths[:0], case.hessian),
        "a width of 7 bits": (case.weight, np.full_like(widths, 7), case.hessian),
        "a Hessian of another shape": (case.weight, widths, np.eye(case.layout.columns + 1, dtype=np.float32)),
    }
    for what, (weight, bits, hessian) in refused.items():
        try:
            quantizer.round(weight, bits, case.layout, hessian)  # type: ignore[arg-type]
        except DataError:
            continue
        case.require(False, f"{what} did not raise DataError")
