"""Watching a text while it is generated: it is passed on piece by piece, and ended at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop string in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


class Listener:
    """A stopping criterion for transformers' `generate` that also passes the new text on.

    What is passed on never has to be taken back: the beginning of what may become a stop string, an unfinished
    character, and a last word whose spaces the tokenizer may still clean up are kept until more is known.
    """

    def __init__(self, tokenizer: Any, start: int, stops: Sequence[str], write: Callable[[str], object] | None) -> None:
        """Listen to what comes after the first `start` tokens.

        Args:
            tokenizer: of the model.
            start: tokens of the prompt in what the model returns.
            stops: strings, not empty, before which the text ends.
            write: called with every piece of the text; not if not given.
        """
        self._tokenizer, self._start, self._stops, self._write = tokenizer, start, stops, write
        self._written = ""

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each sequence is at its end, bool (1,); `ids` is int64 (1, tokens so far)."""
        text = self.text(ids[0])
        cut = cut_at(text, self._stops)
        ended = len(cut) < len(text)
        self._pass_on(cut if ended else self._settled(text))
        return torch.full((len(ids),), ended, dtype=torch.bool, device=ids.device)

    def text(self, ids: torch.Tensor) -> str:
        """What the tokens after the prompt say."""
        return str(self._tokenizer.decode(ids[self._start :], skip_special_tokens=True))

    def finish(self, ids: torch.Tensor) -> str:
        """Pass on the rest; returns the whole text, int64 (tokens,) as it was generated."""
        text = cut_at(self.text(ids), self._stops)
        if not text.startswith(self._written) and self._write is not None:
            # a tokenizer whose text does not grow at its end only: the whole is said once more
            self._write("\n")
            self._written = ""
        self._pass_on(text)
        return text

    def _settled(self, text: str) -> str:
        text = text.rstrip("\ufffd")
        if getattr(self._tokenizer, "clean_up_tokenization_spaces", False):
            text = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
        held = (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(held, default=0)]

    def _pass_on(self, text: str) -> None:
        if self._write is None or not text.startswith(self._written) or len(text) == len(self._written):
            return
        self._write(text[len(self._written) :])
        self._written = text
