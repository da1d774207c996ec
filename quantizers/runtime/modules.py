"""torch modules that hold packed weights: in place of Linear, Conv1D, Embedding and what is tied to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from nash_swarm.compat.classes import combined
from nash_swarm.compat.torch_names import copy_buffers
from nash_swarm.errors import UsageError
from nash_swarm.names import ACTIVATIONS
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.formats.base import Layout, Packed
from nash_swarm.quantizers.runtime import dispatch, ops
from nash_swarm.quantizers.runtime.lazy import DenseOnDemand

Lookup = TypeVar("Lookup", bound=nn.Embedding)


class PackedWeight(nn.Module):
    """A packed matrix as one uint8 buffer, `packed`; subclasses say how it is used.

    Args:
        layout: shape and agent grid.
        strategies: bit-widths of the allocation.
        size: bytes of the buffer.
    """

    packed: torch.Tensor

    def __init__(self, layout: Layout, strategies: tuple[int, ...], size: int) -> None:
        # not `super()`: next in line may be `nn.Embedding`, which would make a matrix of its own
        nn.Module.__init__(self)
        self.layout = layout
        self.strategies = strategies
        self.matrix = description.describe(layout, strategies)
        self.register_buffer("packed", torch.zeros(size, dtype=torch.uint8))

    def tensor(self) -> Packed:
        """The buffer parsed, with all its sections as arrays.

        Raises:
            DataError: the buffer is not what the layout says.
        """
        return dispatch.parse(self.packed, self.matrix)

    def check(self) -> None:
        """Hold the buffer against the layout now, not when it is first used.

        Raises:
            DataError: the buffer is not what the layout says.
        """
        dispatch.find(self.packed, self.matrix)

    def dense(self) -> torch.Tensor:
        """The matrix, float32 (rows, columns), on the buffer's device."""
        return ops.dense(self.packed, self.matrix)

    @property
    def weight(self) -> torch.Tensor:
        """The dense matrix (rows, columns), unpacked each time it is computed with: for code that insists on it."""
        return DenseOnDemand.of(self.dense, (self.layout.rows, self.layout.columns), self.packed)

    def extra_repr(self) -> str:
        """Shape, mean width and bytes, for `print(model)`."""
        layout = self.layout
        if self.packed.is_meta:
            return f"{layout.rows} x {layout.columns}, {len(self.packed)} bytes"
        bits = len(self.packed) * 8 / layout.weights
        return f"{layout.rows} x {layout.columns}, {bits:.2f} bits per weight, everything included"


class PackedLinear(PackedWeight):
    """`y = x W^T + b`; replaces `nn.Linear` and GPT-2's `Conv1D` (whose weight is stored transposed).

    Attributes:
        activations: `int8`, `int16` or `fp32`, see `set_activations`.
    """

    bias: torch.Tensor | None
    activations: str = "int8"

    def __init__(self, layout: Layout, strategies: tuple[int, ...], size: int, bias: bool) -> None:
        super().__init__(layout, strategies, size)
        self.in_features, self.out_features = layout.columns, layout.rows
        self.register_parameter("bias", nn.Parameter(torch.zeros(layout.rows), requires_grad=False) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features), of the type of x.

        Raises:
            DataError: the buffer is not what the layout says.
            UsageError: x has not `in_features` columns.
        """
        # the tables, not the attributes: `nn.Module` takes longer to find those than the op to be called
        packed, bias = self._buffers["packed"], self._parameters["bias"]
        return ops.linear(x, packed, bias, self.matrix, self.activations)  # type: ignore[arg-type]


class PackedEmbedding(PackedWeight, nn.Embedding):  # type: ignore[override]
    """Rows of a packed token or position matrix; only the rows asked for are unpacked.

    It is an `nn.Embedding` only so that it can stand in for one between a model's own subclass and its base, see
    `in_place_of`.

    Attributes:
        dtype: of the rows; follows the module's.
    """

    dtype: torch.dtype = torch.float32
    padding_idx = None

    def __init__(self, layout: Layout, strategies: tuple[int, ...], size: int) -> None:
        super().__init__(layout, strategies, size)
        self.embedding_dim = layout.columns

    @property
    def num_embeddings(self) -> int:
        """Rows of the matrix. Setting another number, as `resize_token_embeddings` does, is refused.

        Raises:
            UsageError: another number is set.
        """
        return self.layout.rows

    @num_embeddings.setter
    def num_embeddings(self, rows: int) -> None:
        if rows != self.layout.rows:
            raise UsageError(
                "the tables of a packed model cannot be resized: call resize_token_embeddings on the original model, "
                "save it, and pack that"
            )

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """(...) token ids to (..., embedding_dim).

        Raises:
            DataError: the buffer is not what the layout says.
            IndexError: an id is outside the matrix.
        """
        return ops.rows(index, self._buffers["packed"], self.matrix, self.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> PackedEmbedding:
        # there is no floating-point tensor here that `.to(dtype)` could convert
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class TiedLookup(nn.Embedding):
    """Looks up rows of a packed embedding that stands elsewhere in the model; owns no weights.

    It is an `nn.Embedding` for the same reason as `PackedEmbedding`.
    """

    padding_idx = None

    def __init__(self, embedding: PackedEmbedding) -> None:
        nn.Module.__init__(self)
        self._embedding: PackedEmbedding
        object.__setattr__(self, "_embedding", embedding)
        self.embedding_dim = embedding.embedding_dim

    @property
    def num_embeddings(self) -> int:
        """As `PackedEmbedding.num_embeddings`."""
        return self._embedding.num_embeddings

    @num_embeddings.setter
    def num_embeddings(self, rows: int) -> None:
        self._embedding.num_embeddings = rows

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The dense matrix (num_embeddings, embedding_dim), unpacked each time it is computed with."""
        return self._embedding.weight

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """(...) token ids to (..., embedding_dim); raises as `PackedEmbedding`."""
        return PackedEmbedding.forward(self._embedding, index)

    def extra_repr(self) -> str:
        """Shape."""
        return f"{self.num_embeddings} x {self.embedding_dim}, tied"


def in_place_of(original: nn.Module, module: Lookup) -> Lookup:
    """`module`, a look-up, with what the model's own kind of embedding does before and after it looks up.

    Gemma scales the rows, OPT computes the indices: both in the `forward` of a subclass of `nn.Embedding` that calls
    its base. Put between the two, the packed look-up is what it calls.

    Args:
        original: what the model has in this place.
        module: a `PackedEmbedding`, `TiedLookup` or another embedding without weights of its own; changed in place.
    """
    theirs: Any = type(original)
    ours: Any = type(module)
    if theirs is nn.Embedding or not isinstance(original, nn.Embedding):
        return module
    module.__class__ = combined(theirs, ours, _facts)
    kept = vars(module)
    for name, value in vars(original).items():
        kept.setdefault(name, value)
    copy_buffers(original, module)
    return module


def _facts(theirs: Any, ours: Any) -> tuple[str, dict[str, Any]]:
    return f"Packed{theirs.__name__}", {"weight": ours.weight}


class TiedHead(nn.Module):
    """Output head that multiplies with the packed embedding it is tied to; owns no weights but a bias, if any.

    Attributes:
        activations: `int8`, `int16` or `fp32`, see `set_activations`.
    """

    bias: torch.Tensor | None
    activations: str = "int16"

    def __init__(self, embedding: PackedEmbedding, bias: bool = False) -> None:
        super().__init__()
        # a plain attribute would register the embedding a second time, under the head's name
        self._embedding: PackedEmbedding
        object.__setattr__(self, "_embedding", embedding)
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings
        self.register_parameter(
            "bias", nn.Parameter(torch.zeros(self.out_features), requires_grad=False) if bias else None
        )

    @property
    def weight(self) -> torch.Tensor:
        """The dense matrix (out_features, in_features), unpacked each time it is computed with."""
        return self._embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features), of the type of x.

        Raises:
            DataError: the buffer is not what the layout says.
            UsageError: x has not `in_features` columns.
        """
        packed, matrix = self._embedding._buffers["packed"], self._embedding.matrix
        return ops.linear(x, packed, self._parameters["bias"], matrix, self.activations)  # type: ignore[arg-type]


def set_activations(model: nn.Module, activations: str) -> None:
    """Choose how the packed matrices of a model take their inputs.

    Args:
        model: a packed model; changed in place.
        activations: `int8` rounds the inputs of every matrix to 8 bits per group of columns and token and is fast. The
            output head's are rounded a second time, to 16 bits in all, since its error is the logits' own. `fp32`
            multiplies inputs as they are.

    Raises:
        UsageError: there is no such choice.
    """
    check_activations(activations)
    outputs = getattr(model, "get_output_embeddings", lambda: None)()
    for module in model.modules():
        if isinstance(module, PackedLinear | TiedHead):
            head = isinstance(module, TiedHead) or module is outputs
            module.activations = "int16" if head and activations == "int8" else activations


def check_activations(activations: str) -> None:
    """Refuse what is none of `ACTIVATIONS`.

    Raises:
        UsageError: it is none.
    """
    if activations not in ACTIVATIONS:
        raise UsageError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}")
