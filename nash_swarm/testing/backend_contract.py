"""The contract of every backend, as one function that a plug-in's own tests can call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError, UsageError
from nash_swarm.names import Mode
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.rounding.rtn import RoundToNearest
from nash_swarm.quantizers.runtime import dispatch
from nash_swarm.quantizers.runtime.backends.base import Backend, instructions_of
from nash_swarm.testing.products import product

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOKENS = (0, 1, 2, 3, 9, 17, 33)
_NOISE = 1e-5
"""Of sums in float32, relative to the sum of the magnitudes."""


class _Watched(Backend):
    """A backend that counts how often it is asked to compute."""

    name, priority = "watched", 0

    def __init__(self, inner: Backend) -> None:
        self.inner, self.calls = inner, 0

    def refusal(self, layout: Layout, device: torch.device, instructions: frozenset[str]) -> str | None:
        return self.inner.refusal(layout, device, instructions)

    def prepare(self, packed: torch.Tensor, layout: Layout, strategies: tuple[int, ...]) -> Any:
        return self.inner.prepare(packed, layout, strategies)

    def linear(self, matrix: Any, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        self.calls += 1
        return self.inner.linear(matrix, x, bias, activations)

    def rows(self, matrix: Any, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner.rows(matrix, ids)


@dataclass(frozen=True)
class _Case:
    """A matrix as its bytes and as dense numbers, and what is asked of it."""

    tensor: Any
    widths: npt.NDArray[np.uint8]
    strategies: tuple[int, ...]
    packed: torch.Tensor
    text: str
    dense: npt.NDArray[np.float64]
    label: str

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{self.label}: {message}")

    def refused(self, kinds: type[Exception] | tuple[type[Exception], ...], what: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except kinds:
            return
        self.require(False, f"{what} raised no {getattr(kinds, '__name__', 'error of its kind')}")


def check_backend(backend: Backend, *, device: str = "cpu", examples: int = 20, seed: int = 0) -> None:
    """Hold `backend` to the contract on random matrices of the layouts that it supports.

    Products are those of an integer NumPy oracle, which rounds inputs as the mode says, or those of the dense matrix,
    whatever the inputs' type, strides and number of tokens, with and without a bias; rows are those of the dense
    matrix, for ids in any order and shape; the same call gives the same bits; changed bytes are noticed; wrong shapes,
    ids, modes and bytes are refused, the first three before the backend computes anything.

    Args:
        backend: an instance.
        device: where matrices and inputs are.
        examples: number of matrices.
        seed: of the matrices.

    Raises:
        AssertionError: a rule is broken; the message says which, and the matrix' number and kind.
    """
    rng, watched, tried = np.random.default_rng(seed), _Watched(backend), 0
    where = torch.device(device)
    with dispatch.only([watched]), torch.no_grad():
        for number in range(examples):
            layout = _layout(rng)
            if not backend.supports(layout, where, instructions_of(where)):
                continue
            tried += 1
            case = _case(rng, layout, where, f"{backend.name}, matrix {number} of seed {seed}")
            for _ in range(3):
                _check_product(case, rng)
            _check_rows(case, rng)
            _check_refusals(case, watched)
            _check_changes(case, _filled(rng, layout, case.widths, case.strategies, where, case.label))
    if not tried:
        raise AssertionError(f"{backend.name} supports none of {examples} layouts on {device}")


def _layout(rng: np.random.Generator) -> Layout:
    per_weight, shape = bool(rng.random() < 0.3), (int(rng.integers(1, 50)), int(rng.integers(1, 150)))
    layout: Layout = cut(
        "matrix", "linear", shape, "parameter" if per_weight else "tile",
        group_size=int(rng.choice([32, 64])), ordered=bool(rng.random() < 0.5),
        levels="normal" if not per_weight and rng.random() < 0.5 else "uniform",
    )  # fmt: skip
    return layout


def _case(rng: np.random.Generator, layout: Layout, device: torch.device, label: str) -> _Case:
    """A random matrix of random widths."""
    known = layout.format.strategies
    strategies = tuple(sorted(int(bits) for bits in rng.choice(known, int(rng.integers(1, len(known))), replace=False)))
    return _filled(rng, layout, rng.choice(np.array(strategies, np.uint8), layout.agents), strategies, device, label)


def _filled(
    rng: np.random.Generator, layout: Layout, widths: npt.NDArray[np.uint8], strategies: tuple[int, ...],
    device: torch.device, label: str,
) -> _Case:  # fmt: skip
    weight = rng.standard_normal((layout.rows, layout.columns)).astype(np.float32)
    order = rng.permutation(layout.columns) if layout.ordered else None
    rounded = RoundToNearest().round(weight, layout.expand(widths), layout)
    tensor = layout.format.pack(rounded, widths, layout, order, strategies)
    packed = torch.from_numpy(tensor.buffer.copy()).to(device)
    kind = f"{layout.rows} x {layout.columns}, widths {strategies}, {layout.format.name}"
    dense = tensor.dequantize().astype(np.float64)
    text = description.describe(layout, strategies)
    return _Case(tensor, widths, strategies, packed, text, dense, f"{label} ({kind})")


def _check_product(case: _Case, rng: np.random.Generator) -> None:
    layout, device = case.tensor.layout, case.packed.device
    tokens, dtype = int(rng.choice(TOKENS)), DTYPES[rng.integers(len(DTYPES))]
    mode = str(rng.choice(get_args(Mode)))
    x = torch.from_numpy(rng.standard_normal((tokens, layout.columns)).astype(np.float32)).to(device, dtype)
    bias = torch.from_numpy(rng.standard_normal(layout.rows).astype(np.float32)).to(device)
    given, what = x, f"{tokens} tokens, {dtype}, {mode}"
    if tokens and rng.random() < 0.5:
        given, what = x.T.contiguous().T, f"{what}, columns apart"
    if rng.random() < 0.5:
        given, what = given[:, None, None], f"{what}, of more dimensions"
    biased = bool(rng.random() < 0.5)
    arguments = (given, case.packed, bias if biased else None, case.text, mode)
    got = dispatch.linear(*arguments)
    case.require(
        got.dtype is dtype and got.shape == (*given.shape[:-1], layout.rows), f"{what}: {got.dtype} {got.shape}"
    )
    case.require(torch.equal(got, dispatch.linear(*arguments)), f"{what}: a second call gave another result")
    wide = x.float().cpu().numpy()
    exact, size = wide @ case.dense.T, np.abs(wide) @ np.abs(case.dense).T
    shift = bias.double().cpu().numpy() * biased
    allowed = (_NOISE + torch.finfo(dtype).eps) * (size + np.abs(shift)) + 1e-30
    result = got.reshape(tokens, layout.rows).double().cpu().numpy()
    tensor = case.tensor
    meant = [exact, *([product(tensor, wide, mode)] if isinstance(tensor, PackedTensor) else [])]
    near = any(bool((np.abs(result - shift - each) <= allowed).all()) for each in meant)
    case.require(near, f"{what}: neither the oracle's product nor that of the dense matrix")


def _check_rows(case: _Case, rng: np.random.Generator) -> None:
    rows, device = case.tensor.layout.rows, case.packed.device
    some = torch.from_numpy(rng.integers(0, rows, (2, 5)))
    asked = (
        some, some.T, some.to(torch.int32), torch.tensor(rows - 1), torch.full((7,), rows - 1),
        torch.empty(0, 3).long(),
    )  # fmt: skip
    for ids in asked:
        got = dispatch.rows(ids.to(device), case.packed, case.text, torch.float32)
        case.require(got.shape == (*ids.shape, case.dense.shape[1]), f"rows of {tuple(ids.shape)} ids: {got.shape}")
        close = np.allclose(got.cpu().numpy(), case.dense[ids.long().numpy()], rtol=1e-6, atol=0)
        case.require(close, f"rows {ids.tolist()} are not those of the dense matrix")
    whole = dispatch.dense(case.packed, case.text)
    case.require(np.allclose(whole.cpu().numpy(), case.dense, rtol=1e-6, atol=0), "not the dense matrix")


def _check_refusals(case: _Case, watched: _Watched) -> None:
    layout, device = case.tensor.layout, case.packed.device
    x, before = torch.ones(2, layout.columns, device=device), watched.calls
    for wrong in (torch.ones(2, layout.columns + 1), torch.ones(layout.columns, 2, 0), torch.ones(())):
        call = partial(dispatch.linear, wrong.to(device), case.packed, None, case.text, "fp32")
        case.refused(UsageError, f"an input of the shape {tuple(wrong.shape)}", call)
    for index in (-1, layout.rows, 2**40):
        ids = torch.tensor([0, index], device=device)
        case.refused(IndexError, f"row {index}", partial(dispatch.rows, ids, case.packed, case.text, torch.float32))
    for what, packed in {
        "half of the bytes": case.packed[: len(case.packed) // 2].clone(), "no bytes": case.packed[:0].clone(),
        "more bytes": torch.cat((case.packed, case.packed[:1])),
    }.items():  # fmt: skip
        case.refused(DataError, what, partial(dispatch.linear, x, packed, None, case.text, "fp32"))
    case.require(watched.calls == before, "the backend was asked to compute what is to be refused")
    case.refused(UsageError, "a mode int4", lambda: dispatch.linear(x, case.packed, None, case.text, "int4"))


def _check_changes(case: _Case, other: _Case) -> None:
    """Other bytes of the same layout and widths in the same place, and then no matrix at all."""
    x = torch.ones(1, case.tensor.layout.columns, device=case.packed.device)
    dispatch.linear(x, case.packed, None, case.text, "fp32")
    case.packed.copy_(other.packed)
    got = dispatch.linear(x, case.packed, None, case.text, "fp32").double().cpu().numpy()
    allowed = _NOISE * np.abs(other.dense).sum(axis=1) + 1e-30
    case.require(bool((np.abs(got - other.dense.sum(axis=1)) <= allowed).all()), "changed bytes were not noticed")
    case.packed.fill_(255)
    case.refused(DataError, "bytes overwritten", lambda: dispatch.linear(x, case.packed, None, case.text, "fp32"))
