"""Streams generated text piece by piece and ends generation at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first occurrence of any stop string."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


class TextStream:
    """A stopping criterion for transformers' `generate` that also writes the new text as it is generated.

    Written text is never revised: a possible beginning of a stop string, an incomplete character, and a last word whose
    spaces the tokenizer may still clean up are held back until the next tokens decide.
    """

    def __init__(self, tokenizer: Any, start: int, stops: Sequence[str], write: Callable[[str], object] | None) -> None:
        """Stream the text of the tokens after the first `start`.

        Args:
            tokenizer: of the model.
            start: number of prompt tokens in the model's output.
            stops: non-empty strings; the text ends before the first of them.
            write: called with every piece of the text; `None` to only stop.
        """
        self._tokenizer, self._start, self._stops, self._write = tokenizer, start, stops, write
        self._written = ""

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each sequence has ended, bool (1,); `ids` is int64 (1, tokens so far)."""
        text = self.text(ids[0])
        cut = cut_at(text, self._stops)
        ended = len(cut) < len(text)
        self._append(cut if ended else self._final_part(text))
        return torch.full((len(ids),), ended, dtype=torch.bool, device=ids.device)

    def text(self, ids: torch.Tensor) -> str:
        """The text of the tokens after the prompt; `ids` is int64 (tokens,)."""
        return str(self._tokenizer.decode(ids[self._start :], skip_special_tokens=True))

    def finish(self, ids: torch.Tensor) -> str:
        """Write the rest and return the whole text; `ids` is the generated sequence, int64 (tokens,)."""
        text = cut_at(self.text(ids), self._stops)
        if not text.startswith(self._written) and self._write is not None:
            # this tokenizer changed earlier text when more tokens came: write all of it again
            self._write("\n")
            self._written = ""
        self._append(text)
        return text

    def _final_part(self, text: str) -> str:
        """The part of the text that further tokens cannot change."""
        text = text.rstrip("\ufffd")
        if getattr(self._tokenizer, "clean_up_tokenization_spaces", False):
            text = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
        held = (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(held, default=0)]

    def _append(self, text: str) -> None:
        """Write the part of the text that has not been written."""
        if self._write is None or not text.startswith(self._written) or len(text) == len(self._written):
            return
        self._write(text[len(self._written) :])
        self._written = text
