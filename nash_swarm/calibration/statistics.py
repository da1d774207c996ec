"""Running second moments of one matrix's inputs and output gradients over the calibration tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.token_sums import add_products


@dataclass
class Statistics:
    """Sums over calibration tokens; everything stays `None` until something of its kind has been added.

    Attributes:
        tokens: inputs seen, as a multiplying matrix.
        share: `tokens` over those of a matrix that every token passes; below 1 for an expert.
        inputs: sum of x x^T, float32 (columns, columns).
        outputs: sum of (dL/dy)^2, float32 (rows,), L being the summed loss in nats.
        lookups: how often each row was looked up, float64 (rows,), as an embedding.
        gradients: sum of (dL/dy)^2 over looked-up rows, float32 (columns,).
        factor: what inputs are multiplied with for `projected`, float32 (columns, columns), in stored column order.
        projected: sum over windows of (dL/dW U^T)^2, float32 (rows, columns), U being the factor and the columns of W
            in stored order.
        order: column order of an estimate that has its own, int64 (columns,); nothing that is collected.
    """

    tokens: int = 0
    share: float = 1.0
    inputs: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    lookups: torch.Tensor | None = None
    gradients: torch.Tensor | None = None
    factor: npt.NDArray[np.float32] | None = None
    projected: torch.Tensor | None = None
    order: npt.NDArray[np.int64] | None = None

    def add_inputs(self, x: torch.Tensor) -> None:
        """Inputs of a matrix that multiplies, (..., columns)."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        if self.inputs is None:
            self.inputs = torch.zeros(flat.shape[1], flat.shape[1])
        add_products(self.inputs, flat, flat)
        self.tokens += len(flat)

    def add_output_gradients(self, gradient: torch.Tensor) -> None:
        """Gradients of the summed loss at the outputs of a matrix that multiplies, (..., rows)."""
        squares = gradient.detach().reshape(-1, gradient.shape[-1]).float().square().sum(0)
        self.outputs = squares if self.outputs is None else self.outputs + squares

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs, (..., columns), in stored order and times the transposed factor."""
        assert self.factor is not None
        order = torch.from_numpy(self.activation_order())
        stored = x.detach().float()[..., order]
        flat = stored.reshape(-1, stored.shape[-1])
        return add_products(torch.zeros_like(flat), flat.T, torch.from_numpy(self.factor).T).reshape(stored.shape)

    def add_projected(self, gradient: torch.Tensor, projected: torch.Tensor) -> None:
        """Gradients of the summed loss at the outputs, ([windows,] tokens, rows), and projected inputs, as many tokens.

        Without a dimension of windows what is there counts as one. Of labels that the model draws that is as good on
        average: gradients of different windows are independent then.
        """
        size = projected.shape[-1]
        pairs = zip(_windows(gradient.detach().float()), _windows(projected), strict=True)
        if self.projected is None:
            self.projected = torch.zeros(gradient.shape[-1], size)
        for ours, theirs in pairs:
            self.projected += add_products(torch.zeros_like(self.projected), ours, theirs).square_()

    def add_lookups(self, index: torch.Tensor, rows: int) -> None:
        """Rows looked up in an embedding of `rows` rows."""
        counts = torch.bincount(index.reshape(-1), minlength=rows).double()
        self.lookups = counts if self.lookups is None else self.lookups + counts

    def add_lookup_gradients(self, gradient: torch.Tensor) -> None:
        """Gradients of the summed loss at looked-up rows, (..., columns)."""
        squares = gradient.detach().reshape(-1, gradient.shape[-1]).float().square().sum(0)
        self.gradients = squares if self.gradients is None else self.gradients + squares

    def reached(self, needs: str) -> bool:
        """Whether there is what an estimator `needs` (`weights`, `activations` or `gradients`) to judge the matrix."""
        if needs == "weights":
            return True
        multiplied = self.inputs is not None and (needs == "activations" or self.outputs is not None)
        return multiplied or (self.lookups is not None and (needs == "activations" or self.gradients is not None))

    def hessian(self) -> npt.NDArray[np.float32] | None:
        """Mean of x x^T over tokens, (columns, columns)."""
        return None if self.inputs is None else (self.inputs / max(1, self.tokens)).numpy()

    def activation_order(self) -> npt.NDArray[np.int64]:
        """Columns by falling mean square of their inputs, int64 (columns,); `order` if that is given."""
        if self.order is not None:
            return self.order
        assert self.inputs is not None
        return np.argsort(-self.inputs.diagonal().numpy(), kind="stable")

    def lookup_shares(self) -> npt.NDArray[np.float64]:
        """Estimated share of each row in future look-ups, (rows,), sums to 1.

        Rows that the text did not use are not free: the probability mass of unseen rows (Good & Turing: singletons over
        look-ups, Biometrika 1953) is spread over all rows by Zipf's law on the row number, because tokenizers number
        tokens by the frequency at which they were merged.
        """
        assert self.lookups is not None
        counts = self.lookups.numpy()
        total = max(1.0, counts.sum())
        unseen = min(0.5, max(1.0, float((counts == 1).sum())) / total)
        zipf = 1.0 / (np.arange(len(counts)) + 10.0)
        shares: npt.NDArray[np.float64] = (1 - unseen) * counts / total + unseen * zipf / zipf.sum()
        return shares


def _windows(tokens: torch.Tensor) -> torch.Tensor:
    """(windows, tokens, size) of ([windows,] tokens, size)."""
    return tokens if tokens.ndim == 3 else tokens.reshape(1, -1, tokens.shape[-1])
