"""The document's loss: passages padded to 64 tokens, and every padding token predicted and counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nash_swarm.calibration.text import Text
from nash_swarm.errors import DataError, UsageError

LENGTH = 64
PASSAGES = 64
_BATCH = 8


@dataclass(frozen=True, eq=False)
class Padded:
    """Passages of a text, int64 (passages, 64).

    Attributes:
        ids: token ids, padded on the right.
        mask: 1 where a token is one of the text.
    """

    ids: torch.Tensor
    mask: torch.Tensor

    @property
    def padding(self) -> float:
        """Share of the predicted tokens that are padding."""
        return float((self.mask[:, 1:] == 0).float().mean())

    @property
    def tokens(self) -> int:
        """Tokens that the loss is a mean over, padding included."""
        return int(self.ids[:, 1:].numel())


def pad_passages(text: Text, tokenizer: Any, seed: int, *, count: int = PASSAGES) -> Padded:
    """At most `count` lines of prose (or paragraphs, if lines are broken), cut or padded to 64 tokens.

    Padding is the tokenizer's padding token or else its end-of-text token, as is usual with GPT-2.

    Raises:
        UsageError: there is no tokenizer.
        DataError: the text has no passage of two tokens.
    """
    if tokenizer is None:
        raise UsageError("this model has no tokenizer; the original protocol pads text")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.content)]
    lines = [" ".join(line.split()) for line in text.content.splitlines()]
    passages = [part for part in (paragraphs if len(paragraphs) >= count else lines) if part]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(passages))
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    rows: list[list[int]] = []
    for place in order:
        ids = tokenizer(passages[place], add_special_tokens=False, truncation=True, max_length=LENGTH)["input_ids"]
        if len(ids) > 1:
            rows.append(ids)
        if len(rows) == count:
            break
    if not rows:
        raise DataError(f"the text {text.source} has no line of two tokens or more")
    return Padded(
        torch.tensor([row + [pad] * (LENGTH - len(row)) for row in rows]),
        torch.tensor([[1] * len(row) + [0] * (LENGTH - len(row)) for row in rows]),
    )


@torch.no_grad()
def padded_loss(model: Any, padded: Padded) -> float:
    """Mean negative log-likelihood of all tokens but each passage's first, padding counted like text, in nats."""
    return sum(float(part) for part in _losses(model, padded))


def padded_gradients(model: Any, modules: Mapping[str, nn.Linear], padded: Padded) -> dict[str, torch.Tensor]:
    """The gradient of that loss in the weight of each module, by its name."""
    model.zero_grad()
    for part in _losses(model, padded):
        part.backward()
    found = {}
    for name, module in modules.items():
        assert module.weight.grad is not None
        found[name] = module.weight.grad.detach().clone()
    model.zero_grad()
    return found


def _losses(model: Any, padded: Padded) -> Iterator[torch.Tensor]:
    """Parts of the mean, a few passages each."""
    for start in range(0, len(padded.ids), _BATCH):
        ids, mask = padded.ids[start : start + _BATCH], padded.mask[start : start + _BATCH]
        logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        targets = ids[:, 1:].flatten()
        yield torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / padded.tokens
