"""What a model is there for: how it is given windows of text, and by what its errors are judged."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from nash_swarm.errors import DataError, UsageError


class Task(ABC):
    """One kind of model. Windows are token ids (windows, length), int64."""

    longest: ClassVar[int] = 1 << 30
    """Tokens a window of this task should have at most."""
    unit: ClassVar[str]
    """What a change of the loss is counted in."""
    divergence: ClassVar[str]
    """What the distance from the original is called."""

    @abstractmethod
    def inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """Keyword arguments with which the model is called on windows."""

    @abstractmethod
    def answer(self, output: Any) -> torch.Tensor:
        """The tensor in the model's output by which it is judged."""

    @abstractmethod
    def loss(self, answer: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Summed loss whose gradients say what errors cost, and over how many tokens it is a sum."""

    def sampled_loss(self, answer: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Summed loss whose expected squared gradients are the Fisher information, where `loss` has not that already.

        Random, but the same for a window whatever is drawn for others.
        """
        return self.loss(answer, ids)[0]

    def backward(self, answer: torch.Tensor, ids: torch.Tensor, *, sampled: bool) -> tuple[float, int]:
        """Backward pass of `loss`, or of `sampled_loss`; returns the summed loss on the text, and its tokens."""
        loss, tokens = self.loss(answer.detach() if sampled else answer, ids)
        (self.sampled_loss(answer, ids) if sampled else loss).backward()
        return float(loss.detach()), tokens

    def places(self, ids: torch.Tensor) -> int:
        """Inputs of a matrix that every token passes: what the experts' share of the tokens is relative to."""
        return ids.numel()

    def frame(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        """Token ids that stand before and after the text of every window."""
        return [], []


class Prediction(Task):
    """Models that predict tokens: judged by the likelihood of the text."""

    unit: ClassVar[str] = "nats per token"
    divergence: ClassVar[str] = "KL"

    @abstractmethod
    def predicted(self, logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (windows, tokens, vocabulary) of what is predicted, and what should have been (windows, tokens)."""

    def answer(self, output: Any) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = output.logits
        return logits

    def loss(self, answer: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Negative log-likelihood in nats."""
        logits, target = self.predicted(answer, ids)
        flat = target.flatten()
        return functional.cross_entropy(logits.float().flatten(0, 1), flat, reduction="sum"), len(flat)

    def sampled_loss(self, answer: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of tokens that the model itself draws, each after the text before it."""
        logits, _ = self.predicted(answer, ids)
        total = logits.new_zeros((), dtype=torch.float32)
        for window, said in zip(ids, logits.float(), strict=True):
            drawn = torch.multinomial(said.detach().softmax(-1), 1, generator=_generator(window))
            total = total + functional.cross_entropy(said, drawn[:, 0], reduction="sum")
        return total


class NextToken(Prediction):
    """Causal language models."""

    def inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """See `Task.inputs`."""
        return {"input_ids": ids, "use_cache": False}

    def predicted(self, logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every token but the first, from those before it."""
        return logits[:, :-1], ids[:, 1:]


@dataclass(frozen=True)
class SecondHalf(Prediction):
    """Encoder-decoder models: the encoder reads the first half of a window, the decoder predicts the second.

    Attributes:
        start: token with which the decoder starts.
    """

    start: int

    def inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """See `Task.inputs`."""
        first, second = self._halves(ids)
        given = torch.cat([torch.full_like(second[:, :1], self.start), second[:, :-1]], dim=1)
        return {"input_ids": first, "decoder_input_ids": given, "use_cache": False}

    def predicted(self, logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The second half."""
        return logits, self._halves(ids)[1]

    def places(self, ids: torch.Tensor) -> int:
        """Each stack sees one half."""
        return self._halves(ids)[1].numel()

    @staticmethod
    def _halves(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle = ids.shape[1] // 2
        return ids[:, :middle], ids[:, middle:]


class Embedding(Task):
    """Encoders: judged by the direction of the mean of their last hidden states, as sentence embeddings are compared.

    The loss to second order of an error that turns a unit vector u by du is 1 - cos = |du|^2 / 2. Its Gauss-Newton
    matrix J^T J is what gradients of `<v, u>` have as second moment for v with independent standard normal entries
    (Hutchinson 1990); one v for each window, drawn from the window itself.
    """

    unit: ClassVar[str] = "1 - cosine per window"
    divergence: ClassVar[str] = "1 - cosine"
    longest: ClassVar[int] = 128

    def inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """See `Task.inputs`."""
        return {"input_ids": ids}

    def answer(self, output: Any) -> torch.Tensor:
        """The last hidden states."""
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    @staticmethod
    def vectors(answer: torch.Tensor) -> torch.Tensor:
        """Unit vectors (windows, hidden size)."""
        return functional.normalize(answer.float().mean(dim=1), dim=-1)

    def loss(self, answer: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Sum of `<v, u>`, scaled so that a mean over tokens of squared gradients comes out as one over windows."""
        found = self.vectors(answer)
        rows = [torch.randn(found.shape[1], generator=_generator(window)) for window in ids]
        return (torch.stack(rows) * found).sum() * ids.shape[1] ** 0.5, ids.numel()

    def frame(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        """The tokens between which the encoder was trained to see a text."""
        ends = (getattr(tokenizer, name, None) for name in ("cls_token_id", "sep_token_id"))
        first, last = ([] if token is None else [token] for token in ends)
        return first, last


def _generator(window: torch.Tensor) -> torch.Generator:
    """What is drawn for a window does not depend on which others it is seen with."""
    return torch.Generator().manual_seed(zlib.crc32(window.numpy().tobytes()))


def task_of(model: Any) -> Task:
    """What a model is there for.

    Raises:
        UsageError: it is a kind of model that nash-swarm cannot judge.
        DataError: an encoder-decoder whose configuration does not say how its decoder starts.
    """
    config = model.config
    if (reads := getattr(model, "main_input_name", "input_ids")) != "input_ids":
        raise UsageError(f"a {type(model).__name__} reads {reads}, not text")
    if getattr(config, "is_encoder_decoder", False):
        start = getattr(config, "decoder_start_token_id", None)
        start = getattr(config, "pad_token_id", None) if start is None else start
        if start is None:
            raise DataError("config.json names no decoder_start_token_id: how the decoder starts is not known")
        return SecondHalf(start)
    if model.can_generate():
        return NextToken()
    if model.get_output_embeddings() is None and hasattr(model, "base_model") and model.base_model is model:
        return Embedding()
    raise UsageError(
        f"a {type(model).__name__} neither writes text nor is an encoder alone; load it with AutoModel or "
        "AutoModelForCausalLM"
    )


def require_predictions(model: Any, what: str, *, causal: bool = False) -> None:
    """Refuse a model that predicts no tokens, or none that follow its input.

    Args:
        model: a model.
        what: what cannot do without.
        causal: refuse encoder-decoders too.

    Raises:
        UsageError: it is one.
    """
    if not isinstance(task_of(model), NextToken if causal else Prediction):
        wanted = "causal language model" if causal else "language model"
        raise UsageError(f"{what} needs a {wanted}, which a {type(model).__name__} is not")
