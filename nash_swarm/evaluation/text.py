"""Text for calibration and evaluation, cut into windows that never overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.positions import longest_window
from nash_swarm.models.tasks import task_of

BUILT_IN_TEXT = "python-docs"
"""CPython's own documentation (`pydoc_data.topics`), on every machine with Python."""
_HELD_OUT_EVERY = 4
_SHORTEST_WINDOW = 16


@dataclass(frozen=True)
class Text:
    """A text and where it came from."""

    content: str
    source: str

    @property
    def digest(self) -> str:
        """Identifies the content, so that an evaluation can tell whether it was calibrated on."""
        return hashlib.blake2b(self.content.encode(), digest_size=8).hexdigest()


def load_text(source: str) -> Text:
    """Text from a file, the built-in ``python-docs``, or a data set ``ID[:CONFIG[:SPLIT[:COLUMN]]]``.

    Raises:
        DataError: no such file or data set, not UTF-8, or empty.
    """
    path = Path(source)
    if source == BUILT_IN_TEXT:
        from pydoc_data import topics

        content = _without_repeats(topics.topics[name] for name in sorted(topics.topics))
    elif path.is_file():
        try:
            content = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise DataError(f"cannot read {source} as UTF-8 text: {error}") from error
    elif path.suffix or path.is_absolute() or source.startswith("."):
        raise DataError(f"no text file at {source}")
    else:
        content = _dataset_text(source)
    if not content.strip():
        raise DataError(f"the text {source} is empty")
    # reports go where the model goes: they name the file, not the folders of this machine
    return Text(content, path.name if path.is_file() else source)


def _without_repeats(texts: Iterable[str]) -> str:
    """One text of paragraphs that differ: one that stood in two places could be both calibrated on and held out."""
    paragraphs = (part.strip("\n") for text in texts for part in text.split("\n\n") if part.strip())
    return "\n\n".join({" ".join(part.split()): part for part in paragraphs}.values())


def _dataset_text(source: str) -> str:
    name, config, split, column = (source.split(":") + [""] * 3)[:4]
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config or None, split=split or "test")
    except Exception as error:  # datasets raises many kinds for what is one thing to a user
        line = str(error).strip().splitlines()[:1]
        raise DataError(
            f"no text file and no data set {source!r} (write ID:CONFIG:SPLIT:COLUMN): {''.join(line)}"
        ) from error
    column = column or "text"
    if column not in rows.column_names:
        raise DataError(f"data set {name} has no column {column!r}; it has {', '.join(rows.column_names)}")
    return "\n".join(rows[column])


def cut_windows(
    text: Text,
    tokenizer: Any,
    *,
    length: int = 512,
    part: Literal["calibration", "held-out", "all"] = "all",
    model: Any = None,
) -> npt.NDArray[np.int32]:
    """Token ids of the text's consecutive windows, int32 (windows, length); what is left at the end is dropped.

    Every fourth window is held out: `calibration` and `held-out` never share a token. A text shorter than eight
    windows gets shorter ones.

    Args:
        text: what is cut.
        tokenizer: how it becomes token ids.
        length: tokens in a window.
        part: which windows.
        model: who will read them: windows are no longer than it can read, and framed as its task wants it.

    Raises:
        UsageError: there is no tokenizer, or the length is not positive.
        DataError: the text is too short.
    """
    if tokenizer is None:
        raise UsageError("this model has no tokenizer; pass token ids instead of text")
    if length < _SHORTEST_WINDOW:
        raise UsageError(f"windows need at least {_SHORTEST_WINDOW} tokens, not {length}")
    before: list[int] = []
    after: list[int] = []
    if model is not None:
        task = task_of(model)
        before, after = task.frame(tokenizer)
        length = min(length, task.longest, longest_window(model))
    framing = len(before) + len(after)
    ids = np.array(tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"], np.int32)
    length = min(length - framing, len(ids) // (2 * _HELD_OUT_EVERY))
    if length + framing < _SHORTEST_WINDOW:
        raise DataError(
            f"the text {text.source} has {len(ids)} tokens; "
            f"at least {2 * _HELD_OUT_EVERY * _SHORTEST_WINDOW} are needed for calibration and evaluation"
        )
    count = len(ids) // length
    windows = ids[: count * length].reshape(count, length)
    if framing:
        ends = [np.broadcast_to(np.array(end, np.int32), (count, len(end))) for end in (before, after)]
        windows = np.concatenate([ends[0], windows, ends[1]], axis=1)
    held_out = np.arange(count) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return windows if part == "all" else windows[held_out if part == "held-out" else ~held_out]


def choose_windows(windows: npt.NDArray[np.int32], count: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """At most `count` windows, spread by `rng` and kept in the text's order.

    Raises:
        UsageError: `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"the number of windows must be positive, not {count}")
    if count >= len(windows):
        return windows
    return windows[np.sort(rng.choice(len(windows), count, replace=False))]
