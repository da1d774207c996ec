"""Text for calibration and evaluation, cut into windows that never overlap."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.documents import Text
from nash_swarm.calibration.reading import of_content, of_documents, read_dataset, read_file
from nash_swarm.calibration.rows import valid
from nash_swarm.errors import DataError, LeftOutWarning, TextWarning, UsageError
from nash_swarm.models.positions import longest_window
from nash_swarm.models.tasks import task_of

__all__ = [
    "BUILT_IN_TEXT", "Part", "Text", "TextSource", "choose_windows", "cut_windows", "hint_at_text", "load_text",
    "sample_windows", "shortage", "warn_left_out",
]  # fmt: skip

BUILT_IN_TEXT = "python-docs"
"""CPython's own documentation (`pydoc_data.topics`), on every machine with Python."""
Part: TypeAlias = Literal["calibration", "held-out", "all"]
TextSource: TypeAlias = str | Path | Text | Sequence[str]
"""What a text can be given as: a file or another name, see `load_text`, a text, or a list of documents."""
_HELD_OUT_EVERY = 4
_SHORTEST_WINDOW = 16
_LONGEST_NAME = 255
_FROM_A_PIECE = 4
_USES: dict[Part, str] = {"calibration": "to calibrate on", "held-out": "held out of it", "all": "in it"}


def load_text(source: TextSource, *, chat_template: bool = False) -> Text:
    """Text from a file, the built-in ``python-docs``, or a data set ``ID[:CONFIG[:SPLIT[:COLUMN]]]``.

    JSON lines (`.jsonl`, `.ndjson`), JSON lists (`.json`) and data sets give the field `text` of every row, or the
    dialogues in `messages` or `conversations`, which windows show through the tokenizer's chat template. A source of
    more than 16 MB is not read whole: 125 pieces of 64 kB are, evenly spaced (of a data set, its first rows).

    Args:
        source: one of these names, a path, a text, or a list of documents.
        chat_template: make plain text into dialogues, see `read_dialogues`.

    Raises:
        UsageError: it is none of these, the text itself for example.
        DataError: no such file or data set, not UTF-8, empty, or rows of a shape that is not known.

    Warns:
        LeftOutWarning: the source is so large that pieces of it are taken.
    """
    text = _loaded(source)
    if not text.content.strip():
        raise DataError(f"the text {text.source} is empty")
    warn_left_out(text.left_out)
    return text.as_dialogues() if chat_template and not text.chat else text


def _loaded(source: TextSource) -> Text:
    if isinstance(source, Text):
        return source if source.pieces else of_content(valid(source.content), source.source)
    if isinstance(source, Path):
        if not source.is_file():
            raise DataError(f"no text file at {source}")
        return read_file(source)
    if isinstance(source, str):
        return _named(source)
    if isinstance(source, Sequence) and source and all(isinstance(document, str) for document in source):
        documents = [valid(document) for document in source if document.strip()]
        return of_documents(documents, f"a list of {len(source)} texts")
    given = "an empty list" if isinstance(source, Sequence) and not source else f"a {type(source).__name__}"
    raise UsageError(f"text is a file, a data set, a list of strings or a nash_swarm.Text, not {given}")


def _named(source: str) -> Text:
    if source == BUILT_IN_TEXT:
        from pydoc_data import topics

        return Text(_without_repeats(topics.topics[name] for name in sorted(topics.topics)), source)
    longest = max(map(len, (part.encode(errors="replace") for part in source.split("/"))))
    if "\n" in source or "\0" in source or longest > _LONGEST_NAME:
        raise UsageError(
            f"text is the name of a file or data set, not the text itself, which begins {source[:40]!r}: write it to a "
            "file, or pass a list of strings or nash_swarm.Text"
        )
    path = Path(source)
    folder = source.split(":")[0]
    try:
        if path.is_file():
            # reports go where the model goes: they name the file, not the folders of this machine
            return read_file(path)
        known = Path(folder).is_dir()
    except OSError as error:
        raise DataError(f"cannot read {source}: {error}") from error
    if not known and (path.suffix or path.is_absolute() or source.startswith(".") or " " in folder):
        raise DataError(f"no text file at {source}")
    return read_dataset(source)


def _without_repeats(texts: Iterable[str]) -> str:
    """One text of paragraphs that differ: one that stood in two places could be both calibrated on and held out."""
    paragraphs = (part.strip("\n") for text in texts for part in text.split("\n\n") if part.strip())
    return "\n\n".join({" ".join(part.split()): part for part in paragraphs}.values())


@dataclass(frozen=True)
class _Cutter:
    """How a text becomes windows: its tokenizer, and what stands around the `inner` tokens of every window."""

    tokenizer: Any
    before: list[int]
    after: list[int]
    inner: int

    @classmethod
    def of(cls, tokenizer: Any, length: int, model: Any) -> _Cutter:
        if tokenizer is None:
            raise UsageError("this model has no tokenizer; pass token ids instead of text")
        if length < _SHORTEST_WINDOW:
            raise UsageError(f"windows need at least {_SHORTEST_WINDOW} tokens, not {length}")
        before, after = ([], []) if model is None else task_of(model).frame(tokenizer)
        return cls(tokenizer, before, after, _readable(length, model) - len(before) - len(after))

    def ids(self, text: Text, place: int) -> npt.NDArray[np.int32]:
        """Token ids of one piece."""
        rendered = text.render(place, self.tokenizer)
        return np.array(self.tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"], np.int32)

    def windows(self, ids: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int32]:
        """Consecutive windows of `length` of them, framed."""
        count = len(ids) // length
        ends = [np.broadcast_to(np.array(end, np.int32), (count, len(end))) for end in (self.before, self.after)]
        return np.concatenate([ends[0], ids[: count * length].reshape(count, length), ends[1]], axis=1)

    def of_piece(self, text: Text, place: int) -> npt.NDArray[np.int32]:
        """The windows of one piece of a large text."""
        return self.windows(self.ids(text, place), self.inner)


def _readable(length: int, model: Any) -> int:
    return length if model is None else min(length, task_of(model).longest, longest_window(model))


def cut_windows(
    text: Text, tokenizer: Any, *, length: int = 512, part: Part = "all", model: Any = None
) -> npt.NDArray[np.int32]:
    """Token ids of the text's consecutive windows, int32 (windows, length); what is left at the end is dropped.

    Every fourth window is held out: `calibration` and `held-out` never share a token. A text shorter than eight
    windows gets shorter ones. A text of which pieces were taken has every fourth piece held out, and windows end where
    pieces do.

    Args:
        text: what is cut.
        tokenizer: how it becomes token ids.
        length: tokens in a window.
        part: which windows.
        model: who will read them: windows are no longer than it can read, and framed as its task wants it.

    Raises:
        UsageError: there is no tokenizer, no chat template for dialogues, or the length is not positive.
        DataError: the text is too short, or the chat template refuses a dialogue.
    """
    cutter = _Cutter.of(tokenizer, length, model)
    if text.total:
        found = [cutter.of_piece(text, place) for place in _places(text, part)]
        if not any(map(len, found)):
            raise _too_short(text, cutter)
        return np.concatenate(found)
    ids = cutter.ids(text, 0)
    inner = min(cutter.inner, len(ids) // (2 * _HELD_OUT_EVERY))
    if inner + len(cutter.before) + len(cutter.after) < _SHORTEST_WINDOW:
        raise DataError(
            f"the text {text.source} has {len(ids)} tokens; "
            f"at least {2 * _HELD_OUT_EVERY * _SHORTEST_WINDOW} are needed for calibration and evaluation"
        )
    windows = cutter.windows(ids, inner)
    return windows[_of_part(np.arange(len(windows)), part)]


def _of_part(places: npt.NDArray[np.int64], part: Part) -> npt.NDArray[np.bool_]:
    held_out = places % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return held_out | ~held_out if part == "all" else held_out if part == "held-out" else ~held_out


def _places(text: Text, part: Part) -> list[int]:
    places = np.arange(len(text.pieces))
    return [int(place) for place in places[_of_part(places, part)]]


def _too_short(text: Text, cutter: _Cutter) -> DataError:
    return DataError(f"too few pieces of the text {text.source} have {cutter.inner} tokens; ask for shorter windows")


def choose_windows(windows: npt.NDArray[np.int32], count: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """At most `count` windows, spread by `rng` and kept in the text's order.

    Raises:
        UsageError: `count` is not positive.
    """
    if _wanted(count) >= len(windows):
        return windows
    return windows[np.sort(rng.choice(len(windows), count, replace=False))]


def _wanted(count: int, tokens: int = 0, width: int = 1) -> int:
    if tokens:
        return max(1, tokens // width)
    if count < 1:
        raise UsageError(f"the number of windows must be positive, not {count}")
    return count


def sample_windows(
    text: Text,
    tokenizer: Any,
    rng: np.random.Generator,
    *,
    count: int = 0,
    tokens: int = 0,
    length: int = 512,
    part: Part = "all",
    model: Any = None,
    apart_from: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]:
    """Some of the windows that `cut_windows` finds, int32 (windows, length), in the text's order.

    Of a text of which pieces were taken, only as many pieces are tokenized as it takes.

    Args:
        text, tokenizer, length, part, model: see `cut_windows`.
        rng: chooses them.
        count: windows at most.
        tokens: if not 0, tokens at most (but for one window) instead of a count.
        apart_from: windows (windows, length) that are not taken again.

    Raises:
        UsageError, DataError: see `cut_windows` and `choose_windows`.
    """
    seen = set() if apart_from is None else {window.tobytes() for window in apart_from}
    if not text.total:
        cut = cut_windows(text, tokenizer, length=length, part=part, model=model)
        return choose_windows(_unseen(cut, seen), _wanted(count, tokens, cut.shape[1]), rng)
    cutter = _Cutter.of(tokenizer, length, model)
    width = len(cutter.before) + cutter.inner + len(cutter.after)
    count = _wanted(count, tokens, width)
    places = _places(text, part)
    if not len(places):
        raise _too_short(text, cutter)
    each = max(_FROM_A_PIECE, -(-count // len(places)))
    taken: list[tuple[int, int, npt.NDArray[np.int32]]] = []
    spare: list[tuple[int, int, npt.NDArray[np.int32]]] = []
    for place in rng.permutation(places):
        windows = _unseen(cutter.of_piece(text, int(place)), seen)
        found = [(int(place), int(row), windows[row]) for row in rng.permutation(len(windows))]
        taken += found[:each]
        spare += found[each:]
        if len(taken) >= count:
            break
    if not taken and not seen:
        raise _too_short(text, cutter)
    chosen = sorted([*taken, *spare][:count], key=lambda window: window[:2])
    return np.array([window for *_, window in chosen], np.int32).reshape(len(chosen), width)


def _unseen(windows: npt.NDArray[np.int32], seen: set[bytes]) -> npt.NDArray[np.int32]:
    return windows[[window.tobytes() not in seen for window in windows]] if seen else windows


def shortage(
    windows: npt.NDArray[np.int32],
    text: Text,
    *,
    count: int = 0,
    tokens: int = 0,
    length: int = 512,
    part: Part = "all",
    model: Any = None,
) -> tuple[str, ...]:
    """What windows (windows, length) lack of what `sample_windows` was asked for, a sentence each."""
    lines = []
    readable = _readable(length, model)
    count = _wanted(count, tokens, readable)
    if model is not None and readable == longest_window(model) < min(length, task_of(model).longest):
        lines.append(f"the model reads at most {readable} tokens: windows have no more, instead of {length}")
    if windows.shape[1] < readable or len(windows) < count:
        given = f"{len(windows)} windows of {windows.shape[1]} tokens {_USES[part]}"
        lines.append(f"the text {text.source} is short: {given} instead of {count} of {readable}")
    return tuple(lines)


def warn_left_out(lines: Iterable[str]) -> None:
    """Give each sentence as a warning; Python shows the same one once."""
    for line in lines:
        warnings.warn(line, LeftOutWarning, stacklevel=1)


def hint_at_text(text: Text, tokenizer: Any) -> None:
    """Warn when a model that talks is calibrated on the built-in text, which is no talk."""
    if text.source == BUILT_IN_TEXT and getattr(tokenizer, "chat_template", None):
        warnings.warn(
            f"this model has a chat template and is calibrated on {BUILT_IN_TEXT}, English documentation: figures hold "
            "for text of that kind (SmolLM2 at 3.5 bits: KL 0.082 there, 0.175 on templated talks, 0.65 on German and "
            "Chinese); pass text of the kind it will see with --text",
            TextWarning,
            stacklevel=1,
        )
