"""torch modules over latent matrices, to which they add the gradient with respect to the rounded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nash_swarm.calibration.token_sums import add_products
from nash_swarm.tuning.latent import LatentMatrix


class LatentLinear(nn.Module):
    """`y = x W^T + b` with a latent matrix; gradients go to the matrix, to x and to the bias.

    Args:
        matrix: the weights.
        dtype: of inputs and products.
        bias: (rows,), or `None`; the caller trains it.
    """

    def __init__(self, matrix: LatentMatrix, dtype: torch.dtype, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, bias
        # requires a gradient, so that backward runs even if x does not
        self._anchor = torch.zeros((), requires_grad=True)
        # some models read the type of the weights (T5); it is not used in products
        self.weight = torch.empty(matrix.shape, dtype=dtype, device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., columns) to (..., rows), of the type of x."""
        y: torch.Tensor = _Product.apply(x, self._anchor, self.matrix)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


class LatentEmbedding(nn.Embedding):
    """Rows of a latent matrix; gradients go to the matrix. `refresh` computes the dense weights once a step.

    It is an `nn.Embedding` for the same reason as `modules.PackedEmbedding`, see `modules.in_place_of`.

    Args:
        matrix: the weights.
        dtype: of the rows.
        first: another embedding over the same matrix, whose dense weights this one shares.
    """

    padding_idx = None

    def __init__(self, matrix: LatentMatrix, dtype: torch.dtype, first: LatentEmbedding | None = None) -> None:
        nn.Module.__init__(self)
        self.matrix, self._dtype = matrix, dtype
        self.num_embeddings, self.embedding_dim = matrix.shape
        self._anchor = torch.zeros((), requires_grad=True)
        # bypasses registration as a submodule
        object.__setattr__(self, "_first", first)
        if first is None:
            self.refresh()

    def refresh(self) -> None:
        """Recompute the dense weights from the matrix."""
        self._dense = self.matrix.weight().to(self._dtype)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The matrix, (num_embeddings, embedding_dim)."""
        first: LatentEmbedding | None = vars(self)["_first"]
        return self._dense if first is None else first._dense

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """(...) ids to (..., columns)."""
        rows: torch.Tensor = _Rows.apply(index, self._anchor, self)  # type: ignore[no-untyped-call]
        return rows


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, _: torch.Tensor, matrix: LatentMatrix) -> torch.Tensor:
        weight = matrix.weight().to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.matrix = matrix
        return functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight = ctx.saved_tensors
        own = torch.zeros(weight.shape, dtype=weight.dtype)
        ctx.matrix.add_gradient(add_products(own, gradients[0].flatten(0, -2), x.flatten(0, -2)))
        return gradients[0] @ weight, None, None


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, index: torch.Tensor, _: torch.Tensor, module: LatentEmbedding) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.matrix = module.matrix
        return functional.embedding(index, module.weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
        (index,) = ctx.saved_tensors
        whole = torch.zeros(ctx.matrix.shape)
        whole.index_add_(0, index.flatten(), gradients[0].flatten(0, -2).float())
        ctx.matrix.add_gradient(whole)
        return None, None, None
