"""Perplexity, KL divergence and top-1 agreement over non-overlapping sequences; every predicted token counts once.

Encoders are scored by the cosine between their embeddings of a sequence and the original's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm import arguments
from nash_swarm.calibration.streaming import token_windows
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.modes import inference
from nash_swarm.models.tasks import Embedding, Prediction, task_of
from nash_swarm.progress import over


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on held-out text.

    Attributes:
        tokens: number of predicted tokens; of input tokens, for an encoder.
        loss: mean negative log-likelihood, nats per token; `None` for an encoder.
        kl: mean KL(reference || model), nats per token; `None` without a reference or for an encoder.
        top1: share of tokens for which model and reference have the same most likely prediction; for an encoder, share
            of sequences whose nearest other sequence is the same. `None` without a reference.
        cosine: mean cosine between an encoder's embedding of a sequence and the reference's; `None` for other models.
    """

    tokens: int
    loss: float | None
    kl: float | None = None
    top1: float | None = None
    cosine: float | None = None

    @property
    def perplexity(self) -> float | None:
        """exp(loss)."""
        return None if self.loss is None else math.exp(min(self.loss, 700.0))

    @property
    def divergence(self) -> float:
        """Distance from the reference: KL, or 1 - cosine for an encoder.

        Raises:
            UsageError: there was no reference.
        """
        if self.kl is not None:
            return self.kl
        if self.cosine is None:
            raise UsageError("how far a model is from the original is known only with the original")
        return 1.0 - self.cosine


@torch.no_grad()
def evaluate(
    models: Mapping[str, Any], windows: npt.NDArray[np.int32], *, reference: Any = None, quiet: bool = False
) -> dict[str, Evaluation]:
    """Evaluate several models on the same sequences, running the reference once.

    Args:
        models: models of one kind by name; may include the reference itself.
        windows: token ids (sequences, length) without padding; which tokens are only context depends on the kind of
            model, see `nash_swarm.models.tasks`.
        reference: the original model, for KL (or cosine) and top-1 agreement.
        quiet: no progress bar.

    Raises:
        DataError: there are no sequences, or they are too short to predict a token.
        UsageError: models is not a table of models, vocabularies differ, or encoders are given without a reference.
    """
    if not isinstance(models, Mapping) or not models:
        raise UsageError(f"models must be a table of models by name, not {arguments.shown(models)}")
    windows = token_windows(windows)
    if windows.ndim != 2 or not len(windows) or windows.shape[1] < 2:
        raise DataError(f"evaluation tokens must have the shape (windows, length >= 2), not {windows.shape}")
    everyone = [*models.values()] if reference is None else [*models.values(), reference]
    for model in everyone:
        arguments.model(model)
    _check_vocabularies(everyone, windows)
    task = task_of(everyone[-1])
    with inference(*everyone):
        if isinstance(task, Prediction):
            return _evaluate_predictions(task, models, windows, reference, quiet)
        if reference is None:
            raise UsageError("an encoder is judged by its original: name it (--reference)")
        assert isinstance(task, Embedding)
        return _evaluate_embeddings(task, models, windows, reference, quiet)


def _check_vocabularies(models: Sequence[Any], windows: npt.NDArray[np.int32]) -> None:
    """Refuse models whose vocabulary does not contain all tokens of the text.

    Raises:
        UsageError: a token id is outside a model's vocabulary.
    """
    largest = int(windows.max())
    for model in models:
        # a wrapped model may not expose its embedding
        embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
        size = getattr(embedding, "num_embeddings", None)
        if size is not None and not 0 <= windows.min() <= largest < size:
            raise UsageError(
                f"the text has token {largest}, and the {type(model).__name__} has only {size}: the tokenizer, or the "
                "other model, has another vocabulary"
            )


def _evaluate_predictions(
    task: Prediction, models: Mapping[str, Any], windows: npt.NDArray[np.int32], reference: Any, quiet: bool
) -> dict[str, Evaluation]:
    sums = {name: np.zeros(3) for name in models}
    tokens = dict.fromkeys(models, 0)

    def log_probabilities(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, target = task.predicted(task.answer(model(**task.inputs(ids))), ids)
        return torch.log_softmax(logits[0].float(), dim=-1), target[0, :, None]

    for window in over(windows, label="evaluate", unit="window", quiet=quiet):
        ids = torch.from_numpy(window.astype(np.int64))[None]
        known = None if reference is None else log_probabilities(reference, ids)
        for name, model in models.items():
            got, target = known if model is reference and known is not None else log_probabilities(model, ids)
            sums[name][0] -= float(got.gather(-1, target).double().sum())
            if known is not None:
                expected = known[0]
                if got.shape != expected.shape:
                    raise UsageError(
                        f"{name} predicts {got.shape[-1]} tokens and the original {expected.shape[-1]}: they are not "
                        "of one vocabulary, so there is no KL between them"
                    )
                sums[name][1] += float(torch.nn.functional.kl_div(got, expected, reduction="sum", log_target=True))
                sums[name][2] += float((got.argmax(-1) == expected.argmax(-1)).sum())
            tokens[name] += len(target)
    compared = reference is not None
    return {
        name: Evaluation(
            tokens[name],
            float(total) / tokens[name],
            float(kl) / tokens[name] if compared else None,
            float(top) / tokens[name] if compared else None,
        )
        for name, (total, kl, top) in sums.items()
    }


def _evaluate_embeddings(
    task: Embedding, models: Mapping[str, Any], windows: npt.NDArray[np.int32], reference: Any, quiet: bool
) -> dict[str, Evaluation]:
    everyone = [*models.values(), reference]
    vectors: list[list[torch.Tensor]] = [[] for _ in everyone]
    for window in over(windows, label="evaluate", unit="window", quiet=quiet):
        ids = torch.from_numpy(window.astype(np.int64))[None]
        for model, rows in zip(everyone, vectors, strict=True):
            rows.append(task.vectors(task.answer(model(**task.inputs(ids))))[0].double())
    *stacked, expected = [torch.stack(rows) for rows in vectors]
    return {
        name: Evaluation(
            windows.size,
            None,
            top1=float((_nearest(found) == _nearest(expected)).double().mean()),
            cosine=float((found * expected).sum(dim=1).mean()),
        )
        for name, found in zip(models, stacked, strict=True)
    }


def _nearest(vectors: torch.Tensor) -> torch.Tensor:
    """Index of the most similar other row of each row; `vectors` (rows, size) have length 1."""
    return (vectors @ vectors.T).fill_diagonal_(-2.0).argmax(dim=1)
