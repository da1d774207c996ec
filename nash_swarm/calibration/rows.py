"""Rows of JSON files and data sets as documents: a field `text`, or dialogues in `messages` or `conversations`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nash_swarm.calibration.documents import ROLES, Dialogue, Document, Message
from nash_swarm.errors import DataError

FIELDS = ("text", "messages", "conversations", "conversation")
"""Fields that are read, the first that a row has."""
_SPEAKERS, _SAID = ("role", "from"), ("content", "value")


def document_of(row: Any, where: str, field: str = "") -> Document | None:
    """What one row says; `None` if that is nothing.

    Args:
        row: a JSON value: a string, a dialogue as a list of turns, or an object with one of `FIELDS`.
        where: names the row in errors.
        field: the field to take instead.

    Raises:
        DataError: it is of another shape; the message names the fields that it has.
    """
    if isinstance(row, Mapping):
        names = (field,) if field else tuple(name for name in FIELDS if row.get(name) is not None)
        if not names and any(name in row for name in FIELDS):
            return None
        if not names or names[0] not in row:
            raise DataError(
                f"{where} has no field {field or 'text or messages'!r}; it has {', '.join(map(str, row)) or 'none'}"
            )
        row = row[names[0]]
    if row is None or isinstance(row, str):
        return valid(row) if row and row.strip() else None
    if isinstance(row, (list, tuple)):
        return _dialogue(row, where) or None
    raise DataError(f"{where} is a {type(row).__name__}, neither text nor a dialogue")


def _dialogue(turns: Iterable[Any], where: str) -> Dialogue:
    found: list[Message] = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise DataError(f"{where} has a turn that is a {type(turn).__name__}; turns have a role and a content")
        speaker = next((turn[name] for name in _SPEAKERS if isinstance(turn.get(name), str)), None)
        said = next((turn[name] for name in _SAID if name in turn), None)
        if speaker is None or not any(name in turn for name in _SAID):
            raise DataError(
                f"{where} has a turn with the fields {', '.join(map(str, turn)) or 'none'}; role and content are "
                "needed, or from and value"
            )
        if speaker.lower() not in ROLES:
            raise DataError(f"{where} has a turn of {speaker!r}; known are {', '.join(ROLES)}")
        found.append(Message(ROLES[speaker.lower()], _words(said, where)))
    return tuple(found) if any(message.content.strip() for message in found) else ()


def _words(said: Any, where: str) -> str:
    """The text of a turn; of one in parts, pictures among them, the parts that are text."""
    if said is None:
        return ""
    if isinstance(said, str):
        return valid(said)
    if isinstance(said, (list, tuple)):
        parts = (part.get("text") if isinstance(part, Mapping) else part for part in said)
        return "\n".join(valid(part) for part in parts if isinstance(part, str))
    raise DataError(f"{where} has a turn whose content is a {type(said).__name__}, not text")


def valid(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_line(line: str, where: str) -> Document | None:
    """The document of one line of a JSON-lines file.

    Raises:
        DataError: it is no JSON, or of another shape.
    """
    return document_of(parse(line, where), where)


def parse(text: str, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from error
