"""Custom ops of packed matrices, `torch.ops.nash_swarm`: what `torch.compile` and `torch.export` see of them.

An op gets the bytes and one line that describes them (`formats.description`), so an exported program is
complete in itself. `linear` is differentiable with respect to its input and bias. `multiply` is the same without that:
what registers a derivative costs microseconds per call, which is why `ops.linear` takes it only where gradients are
recorded; and in plain eager code, without compiling, tracing, transforms or profiling, it calls what implements the op.
All steps from here to a kernel are listed in `runtime.dispatch`.
"""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.compat.torch_names import dispatch_modes, profiling, tracing, transforms
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.runtime import dispatch

_NAMESPACE = "nash_swarm"
_DEVICES = ("CPU", "CUDA", "MPS", "XPU")
_library = torch.library.Library(_NAMESPACE, "DEF")
_MULTIPLY = "(Tensor x, Tensor packed, Tensor? bias, str matrix, str activations) -> Tensor"
_library.define("multiply" + _MULTIPLY, tags=torch.Tag.pt2_compliant_tag)
_library.define("linear" + _MULTIPLY, tags=torch.Tag.pt2_compliant_tag)
_library.define(
    "rows(Tensor index, Tensor packed, str matrix, ScalarType dtype) -> Tensor", tags=torch.Tag.pt2_compliant_tag
)
_library.define("dense(Tensor packed, str matrix) -> Tensor", tags=torch.Tag.pt2_compliant_tag)


for _name, _function in {
    "multiply": dispatch.linear, "linear": dispatch.linear, "rows": dispatch.rows, "dense": dispatch.dense
}.items():  # fmt: skip
    for _device in _DEVICES:
        _library.impl(_name, _function, _device)


@torch.library.register_fake(f"{_NAMESPACE}::multiply")
@torch.library.register_fake(f"{_NAMESPACE}::linear")
def _fake_multiply(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, matrix: str, activations: str
) -> torch.Tensor:
    layout, _ = description.read(matrix)
    dispatch.check_columns(x, layout)
    return x.new_empty((*x.shape[:-1], layout.rows))


@torch.library.register_fake(f"{_NAMESPACE}::rows")
def _fake_rows(index: torch.Tensor, packed: torch.Tensor, matrix: str, dtype: torch.dtype) -> torch.Tensor:
    return index.new_empty((*index.shape, description.read(matrix)[0].columns), dtype=dtype)


@torch.library.register_fake(f"{_NAMESPACE}::dense")
def _fake_dense(packed: torch.Tensor, matrix: str) -> torch.Tensor:
    layout, _ = description.read(matrix)
    return packed.new_empty((layout.rows, layout.columns), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, packed, bias, matrix, _ = inputs
    ctx.save_for_backward(packed)
    ctx.matrix, ctx.types = matrix, (x.dtype, None if bias is None else bias.dtype)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    # rounding of the input counts as if it were none: its own derivative is zero almost everywhere
    of_x = of_bias = None
    wide = gradient.float()
    if ctx.needs_input_grad[0]:
        of_x = (wide @ dense(ctx.saved_tensors[0], ctx.matrix)).to(ctx.types[0])
    if ctx.needs_input_grad[2]:
        of_bias = wide.flatten(0, -2).sum(0).to(ctx.types[1])
    return of_x, None, of_bias, None, None


torch.library.register_autograd(f"{_NAMESPACE}::linear", _backward, setup_context=_remember)

_linear = torch.ops.nash_swarm.linear.default
_multiply = torch.ops.nash_swarm.multiply.default
dense = torch.ops.nash_swarm.dense.default
"""`dense(packed, matrix)`: the matrix, float32 (rows, columns)."""
rows = torch.ops.nash_swarm.rows.default
"""`rows(index, packed, matrix, dtype)`: rows `index` (any shape) of the matrix, (*index, columns)."""


def linear(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, matrix: str, activations: str
) -> torch.Tensor:
    """`x W^T + b`, (..., rows) of the type of x.

    Args:
        x: floating point (..., columns).
        packed: uint8 (bytes,).
        bias: (rows,) or `None`.
        matrix: what the bytes are, from `description.describe`.
        activations: `int8`, `int16` (two roundings) or `fp32`.

    Raises:
        DataError: the bytes are not what `matrix` says.
        UsageError: x has another number of columns, or there is no such choice of activations.
    """
    if torch.is_grad_enabled():
        return _linear(x, packed, bias, matrix, activations)
    if nobody_watches(x, packed):
        return dispatch.linear(x, packed, bias, matrix, activations)
    return _multiply(x, packed, bias, matrix, activations)


def nobody_watches(x: torch.Tensor, packed: torch.Tensor) -> bool:
    """Whether the dispatcher, which costs microseconds per call, would do nothing but call `dispatch.linear`."""
    return (
        type(x) is torch.Tensor
        and not torch.compiler.is_compiling()
        and x.is_cpu
        and packed.is_cpu
        and not dispatch_modes()
        and transforms() is None
        and not tracing()
        and not profiling()
    )
