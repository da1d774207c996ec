"""Second moments of one matrix's inputs and output gradients, summed over the calibration tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.token_sums import add_products


@dataclass(frozen=True)
class Observer:
    """A further statistic of multiplying matrices, beside those that every `Statistics` has.

    Attributes:
        name: its key in `Statistics.observed`.
        of: what it is computed from: the inputs of a matrix (needs `activations`), or the gradients of the summed loss
            at its outputs (needs `gradients`).
        total: maps a batch, float32 (tokens, columns) or (tokens, rows), to the batch's sum over tokens, of one shape
            for all batches. Sums of batches are added up.
    """

    name: str
    of: Literal["inputs", "gradients"]
    total: Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Statistics:
    """Sums over calibration tokens, on the device of what is added; a sum is `None` while nothing has been added to it.

    Attributes:
        tokens: number of inputs that were multiplied with.
        share: `tokens` over those of a matrix that every token passes; below 1 for an expert.
        inputs: sum of x x^T, float32 (columns, columns).
        outputs: sum of (dL/dy)^2, float32 (rows,), L being the summed loss in nats.
        lookups: how often each row was looked up, float64 (rows,), as an embedding.
        gradients: sum of (dL/dy)^2 over looked-up rows, float32 (columns,).
        factor: U, the factor of inputs for `projected`, float32 (columns, columns), in stored column order.
        projected: sum over sequences of (dL/dW U^T)^2, float32 (rows, columns), the columns of W in stored order.
        observed: sums of `Observer`s, by name.
    """

    tokens: int = 0
    share: float = 1.0
    inputs: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    lookups: torch.Tensor | None = None
    gradients: torch.Tensor | None = None
    factor: npt.NDArray[np.float32] | None = None
    projected: torch.Tensor | None = None
    observed: dict[str, torch.Tensor] = field(default_factory=dict)

    def add_inputs(self, x: torch.Tensor) -> None:
        """Inputs of a multiplying matrix, (..., columns)."""
        flat = _flat(x)
        if self.inputs is None:
            self.inputs = flat.new_zeros(flat.shape[1], flat.shape[1])
        add_products(self.inputs, flat, flat)
        self.tokens += len(flat)

    def add_output_gradients(self, gradient: torch.Tensor) -> None:
        """Gradients of the summed loss at the outputs of a multiplying matrix, (..., rows)."""
        squares = _flat(gradient).square().sum(0)
        self.outputs = squares if self.outputs is None else self.outputs + squares

    def observe(self, observer: Observer, values: torch.Tensor) -> None:
        """Inputs or output gradients, (..., size), for the sum of an observer."""
        total = observer.total(_flat(values))
        known = self.observed.get(observer.name)
        self.observed[observer.name] = total if known is None else known + total

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs, (..., columns), in stored order and times the transposed factor."""
        assert self.factor is not None
        order = torch.from_numpy(self.activation_order()).to(x.device)
        stored = x.detach().float()[..., order]
        flat = stored.reshape(-1, stored.shape[-1])
        factor = torch.from_numpy(self.factor).to(x.device)
        return add_products(torch.zeros_like(flat), flat.T, factor.T).reshape(stored.shape)

    def add_projected(self, gradient: torch.Tensor, projected: torch.Tensor) -> None:
        """Gradients of the summed loss at the outputs and projected inputs, ([sequences,] tokens, size) both.

        Tokens without a dimension of sequences count as one sequence. With labels sampled from the model that is as
        good on average, because gradients of different sequences are then independent.
        """
        pairs = zip(_sequences(gradient.detach().float()), _sequences(projected), strict=True)
        if self.projected is None:
            self.projected = projected.new_zeros(gradient.shape[-1], projected.shape[-1])
        for ours, theirs in pairs:
            self.projected += add_products(torch.zeros_like(self.projected), ours, theirs).square_()

    def add_lookups(self, index: torch.Tensor, rows: int) -> None:
        """Row indices (...) looked up in an embedding of `rows` rows."""
        counts = torch.bincount(index.reshape(-1), minlength=rows).double()
        self.lookups = counts if self.lookups is None else self.lookups + counts

    def add_lookup_gradients(self, gradient: torch.Tensor) -> None:
        """Gradients of the summed loss at looked-up rows, (..., columns)."""
        squares = _flat(gradient).square().sum(0)
        self.gradients = squares if self.gradients is None else self.gradients + squares

    def reached(self, needs: str) -> bool:
        """Whether the statistics that an estimator `needs` (`weights`, `activations` or `gradients`) are there."""
        if needs == "weights":
            return True
        multiplied = self.inputs is not None and (needs == "activations" or self.outputs is not None)
        return multiplied or (self.lookups is not None and (needs == "activations" or self.gradients is not None))

    def hessian(self) -> npt.NDArray[np.float32] | None:
        """Mean of x x^T over tokens, (columns, columns)."""
        return None if self.inputs is None else array(self.inputs / max(1, self.tokens))

    def activation_order(self) -> npt.NDArray[np.int64]:
        """Columns by falling mean square of their inputs, int64 (columns,)."""
        assert self.inputs is not None
        return np.argsort(-array(self.inputs.diagonal()), kind="stable")

    def lookup_shares(self) -> npt.NDArray[np.float64]:
        """Estimated share of each row in future look-ups, (rows,), sums to 1.

        Rows that do not occur in the text still have a share: the probability mass of unseen rows (Good & Turing:
        singletons over look-ups, Biometrika 1953) is spread over all rows by Zipf's law on the row number, because
        tokenizers number tokens by the frequency at which they were merged.
        """
        assert self.lookups is not None
        counts: npt.NDArray[np.float64] = array(self.lookups)
        total = max(1.0, counts.sum())
        unseen = min(0.5, max(1.0, float((counts == 1).sum())) / total)
        zipf = 1.0 / (np.arange(len(counts)) + 10.0)
        shares: npt.NDArray[np.float64] = (1 - unseen) * counts / total + unseen * zipf / zipf.sum()
        return shares


def array(values: torch.Tensor) -> npt.NDArray[Any]:
    """A tensor of any device as a NumPy array of its type."""
    found: npt.NDArray[Any] = values.detach().cpu().numpy()
    return found


def _flat(values: torch.Tensor) -> torch.Tensor:
    """float32 (tokens, size) of (..., size)."""
    return values.detach().reshape(-1, values.shape[-1]).float()


def _sequences(tokens: torch.Tensor) -> torch.Tensor:
    """(sequences, tokens, size) of ([sequences,] tokens, size)."""
    return tokens if tokens.ndim == 3 else tokens.reshape(1, -1, tokens.shape[-1])
