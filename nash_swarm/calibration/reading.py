"""Reading texts in proportion to what can be used of them: of a large one pieces, spread evenly over it.

Which pieces depends on the size of the source alone, so that every command, seed and number of windows finds the same.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from nash_swarm.calibration.documents import Document, Message, Text, join
from nash_swarm.calibration.rows import FIELDS, document_of, parse, parse_line
from nash_swarm.errors import DataError

WHOLE_BYTES = 16_000_000
"""A larger source is read in pieces."""
PIECE_BYTES = 64_000
PIECES = 125
_LONGEST_ROW = 1_000_000
_LONGEST_LIST = 256_000_000
_LINES, _JSON = (".jsonl", ".ndjson"), ".json"


def read_file(path: Path) -> Text:
    """The text of a UTF-8 file; of JSON lines, or a JSON list, what their rows say.

    Raises:
        DataError: it cannot be read, is not UTF-8, or has rows of a shape that is not known.
    """
    try:
        size = path.stat().st_size
        suffix = path.suffix.lower()
        if suffix in _LINES or (suffix == _JSON and _begins_with_a_row(path)):
            return _read_lines(path, size)
        if suffix == _JSON:
            return _read_json(path, size)
        if size <= WHOLE_BYTES:
            return Text(path.read_text(encoding="utf-8"), path.name)
        with path.open("rb") as file:
            return _spread([(piece,) for piece in _plain_pieces(file, size)], path.name, size)
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text: {error}") from error


def of_content(content: str, source: str) -> Text:
    """A text in memory as `read_file` would read it from a file."""
    raw = content.encode()
    if len(raw) <= WHOLE_BYTES:
        return Text(content, source)
    return _spread([(piece,) for piece in _plain_pieces(io.BytesIO(raw), len(raw))], source, len(raw))


def of_documents(documents: Sequence[Document], source: str) -> Text:
    """Documents as one text, a blank line between two; of more than can be used, some spread evenly over all."""
    size = sum(map(_size, documents))
    if size <= WHOLE_BYTES:
        return _whole(documents, source, "\n\n")
    if len(documents) < PIECES and all(isinstance(document, str) for document in documents):
        return of_content("\n\n".join(map(str, documents)), source)
    ends = [slot * len(documents) // PIECES for slot in range(PIECES + 1)]
    return _spread([_fill(documents[first:last]) for first, last in pairwise(ends)], source, size)


def read_dataset(source: str) -> Text:
    """The text of a data set ``ID[:CONFIG[:SPLIT[:COLUMN]]]``: its rows in order until there is enough.

    Raises:
        DataError: there is none, or it has no such column.
    """
    name, config, split, column = (source.split(":") + [""] * 3)[:4]
    from datasets import load_dataset

    documents: list[Document] = []
    size = 0
    try:
        # nothing is downloaded but the rows that are looked at
        for number, row in enumerate(load_dataset(name, config or None, split=split or "test", streaming=True)):
            present = [field for field in FIELDS if field in row]
            field = column or next((field for field in present if row[field] is not None), [*present, "text"][0])
            if field not in row:
                raise DataError(f"data set {name} has no column {field!r}; it has {', '.join(row)}")
            value = row[field]
            document = value if isinstance(value, str) else document_of(value, f"data set {name}, row {number + 1}")
            if document is not None:
                documents.append(document)
                size += _size(document)
            if size > WHOLE_BYTES:
                break
    except DataError:
        raise
    except Exception as error:  # datasets raises many kinds for what is one thing to a user
        line = str(error).strip().splitlines()[:1]
        raise DataError(
            f"no text file and no data set {source!r} (write ID:CONFIG:SPLIT:COLUMN): {''.join(line)}"
        ) from error
    if size <= WHOLE_BYTES:
        return _whole(documents, source, "\n")
    rows = iter(documents)
    told = f"the data set {source} is long; its first {{}} are used"
    return _in_pieces((_fill(rows) for _ in range(PIECES)), source, size, told)


def _whole(documents: Sequence[Document], source: str, separator: str) -> Text:
    plain = [document for document in documents if isinstance(document, str)]
    if len(plain) == len(documents):
        return Text(separator.join(plain), source, (tuple(documents),) if len(plain) > 1 else ())
    return Text(join(documents), source, (tuple(documents),))


def _spread(pieces: Iterable[tuple[Document, ...]], source: str, size: int) -> Text:
    told = f"the text {source} has {_megabytes(size)}; {{}} of it, evenly spaced, are used"
    return _in_pieces(pieces, source, size, told)


def _in_pieces(pieces: Iterable[tuple[Document, ...]], source: str, size: int, told: str) -> Text:
    found = tuple(piece for piece in pieces if join(piece).strip())
    if not found:
        raise DataError(f"the text {source} has {_megabytes(size)}, and nothing in the places that were looked at")
    content = join(document for piece in found for document in piece)
    used = _megabytes(sum(map(_size, (document for piece in found for document in piece))))
    return Text(content, source, found, size, left_out=(told.format(used),))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _size(document: Document) -> int:
    if isinstance(document, str):
        return len(document.encode())
    return sum(len(message.content.encode()) for message in document)


def _fill(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The first documents that fill a piece, the last of them cut off where the piece ends."""
    found: list[Document] = []
    room = PIECE_BYTES
    for document in documents:
        found.append(_cut(document, room))
        room -= _size(document)
        if room <= 0:
            break
    return tuple(found)


def _cut(document: Document, room: int) -> Document:
    """As much of a document as there is room for, bytes; of a dialogue whole turns, and the first in any case."""
    if _size(document) <= room:
        return document
    if isinstance(document, str):
        return _aligned(document.encode()[:room].decode(errors="ignore"), begins=True)
    turns: list[Message] = []
    for message in document:
        room -= len(message.content.encode())
        if room < 0 and turns:
            break
        turns.append(message)
    return tuple(turns)


def _plain_pieces(file: BinaryIO, size: int) -> Iterator[str]:
    for slot in range(PIECES):
        start = slot * size // PIECES
        file.seek(start)
        raw = file.read(PIECE_BYTES)
        if start:
            # a character that began before
            raw = raw[next((k for k in range(min(4, len(raw))) if raw[k] & 0xC0 != 0x80), 0) :]
        text = codecs.getincrementaldecoder("utf-8")().decode(raw)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield _aligned(text, begins=start == 0)


def _aligned(text: str, *, begins: bool) -> str:
    """A piece from the first place where something begins to the last, a paragraph if possible, else a line or word."""
    margin = len(text) // 4
    first, last = 0, len(text)
    if not begins:
        first = next((at + len(mark) for mark in _BREAKS if (at := text.find(mark, 0, margin)) >= 0), 0)
    last = next((at for mark in _BREAKS if (at := text.rfind(mark, last - margin)) >= 0), last)
    return text[first:last].strip("\n")


_BREAKS = ("\n\n", "\n", " ")


def _read_lines(path: Path, size: int) -> Text:
    if size > WHOLE_BYTES:
        with path.open("rb") as file:
            slots = (_rows_of_slot(file, slot, size, path.name) for slot in range(PIECES))
            return _spread(map(_fill, slots), path.name, size)
    lines = path.read_text(encoding="utf-8").removeprefix("\ufeff").split("\n")
    found = [parse_line(line, f"{path.name}, line {at + 1}") for at, line in enumerate(lines) if line.strip()]
    return of_documents([document for document in found if document is not None], path.name)


def _rows_of_slot(file: BinaryIO, slot: int, size: int, name: str) -> Iterator[Document]:
    """What the rows say that begin in one of the equal parts of a file; none that takes more than a megabyte."""
    start, end = slot * size // PIECES, (slot + 1) * size // PIECES
    file.seek(max(start - 1, 0))
    if start and not file.readline(_LONGEST_ROW).endswith(b"\n"):
        return
    while (at := file.tell()) < end:
        line = file.readline(_LONGEST_ROW)
        if len(line) == _LONGEST_ROW and not line.endswith(b"\n"):
            return
        text = line.decode("utf-8").removeprefix("\ufeff")
        document = parse_line(text, f"{name}, byte {at}") if text.strip() else None
        if document is not None:
            yield document


def _begins_with_a_row(path: Path) -> bool:
    """Whether a file that is called `.json` holds an object on its first line: JSON lines under another name."""
    with path.open("rb") as file:
        line = file.readline(_LONGEST_ROW).decode("utf-8", errors="ignore").removeprefix("\ufeff")
    if not line.lstrip().startswith("{"):
        return False
    try:
        parse(line, path.name)
    except DataError:
        return False
    return True


def _read_json(path: Path, size: int) -> Text:
    if size > _LONGEST_LIST:
        raise DataError(
            f"{path.name} is a JSON file of {_megabytes(size)}, which must be read whole; write its rows as JSON lines "
            f"(jq -c '.[]' {path.name} > {path.stem}.jsonl)"
        )
    values: Any = parse(path.read_text(encoding="utf-8").removeprefix("\ufeff"), path.name)
    if not isinstance(values, list) or _is_dialogue(values):
        values = [values]
    found = [document_of(value, f"{path.name}, entry {at + 1}") for at, value in enumerate(values)]
    return of_documents([document for document in found if document is not None], path.name)


def _is_dialogue(values: Sequence[Any]) -> bool:
    turns = all(isinstance(value, dict) and {"role", "from"} & value.keys() for value in values)
    return bool(values) and turns and not any(set(FIELDS) & value.keys() for value in values)
