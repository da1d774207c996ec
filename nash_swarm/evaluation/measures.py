"""Perplexity, KL divergence and top-1 agreement over non-overlapping windows, every predicted token counting once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from nash_swarm.errors import DataError
from nash_swarm.models.modes import inference


@dataclass(frozen=True)
class Evaluation:
    """How a model does on held-out text.

    Attributes:
        tokens: predicted tokens.
        loss: mean negative log-likelihood, nats per token.
        kl: mean KL(reference || model), nats per token; `None` without a reference.
        top1: share of tokens on which model and reference agree on the most likely one; `None` without a reference.
    """

    tokens: int
    loss: float
    kl: float | None = None
    top1: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def evaluate(
    models: Mapping[str, Any], windows: npt.NDArray[np.int32], *, reference: Any = None, quiet: bool = False
) -> dict[str, Evaluation]:
    """Evaluate several models side by side on the same windows, running the reference once.

    Args:
        models: causal language models by name; may include the reference itself.
        windows: token ids (windows, length); the first token of each window is context only. No padding.
        reference: the original model, for KL and top-1 agreement.
        quiet: no progress bar.

    Raises:
        DataError: there are no windows, or they are too short to predict anything.
    """
    if windows.ndim != 2 or not len(windows) or windows.shape[1] < 2:
        raise DataError(f"evaluation tokens must have the shape (windows, length >= 2), not {windows.shape}")
    everyone = [*models.values()] if reference is None else [*models.values(), reference]
    with inference(*everyone):
        return _evaluate(models, windows, reference, quiet)


def _evaluate(
    models: Mapping[str, Any], windows: npt.NDArray[np.int32], reference: Any, quiet: bool
) -> dict[str, Evaluation]:
    sums = {name: np.zeros(3) for name in models}
    tokens = 0
    for window in tqdm(windows, desc="evaluate", unit="window", disable=quiet):
        ids = torch.from_numpy(window.astype(np.int64))[None]
        target = ids[0, 1:, None]
        tokens += len(target)
        expected = None if reference is None else _log_probabilities(reference, ids)
        for name, model in models.items():
            got = expected if model is reference and expected is not None else _log_probabilities(model, ids)
            sums[name][0] -= float(got.gather(-1, target).double().sum())
            if expected is not None:
                sums[name][1] += float(torch.nn.functional.kl_div(got, expected, reduction="sum", log_target=True))
                sums[name][2] += float((got.argmax(-1) == expected.argmax(-1)).sum())
    compared = reference is not None
    return {
        name: Evaluation(
            tokens,
            float(total) / tokens,
            float(kl) / tokens if compared else None,
            float(top) / tokens if compared else None,
        )
        for name, (total, kl, top) in sums.items()
    }


def _log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits = model(ids, use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1)
