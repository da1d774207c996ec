"""A text as it was read: plain, or documents and dialogues; a dialogue becomes text by a tokenizer's chat template."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from nash_swarm.errors import DataError, UsageError

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip
"""Names of speakers as data sets write them."""
_MARK = re.compile(r"^[ \t]*(system|user|human|assistant)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_RULE = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)
_CHAT = "+chat"


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


Dialogue: TypeAlias = tuple[Message, ...]
Document: TypeAlias = str | Dialogue


@dataclass(frozen=True)
class Text:
    """A text and where it came from.

    Attributes:
        content: all of it as plain text.
        source: what reports call it.
        pieces: the documents of each piece; empty for a text that is one plain document, `content`.
        total: bytes of the source if it is large and pieces of it were taken, which are then cut into windows one by
            one; 0 if the text is all of it.
        chat: whether plain text was made into dialogues.
        left_out: what of the source is not in the text, a sentence each.
    """

    content: str
    source: str
    pieces: tuple[tuple[Document, ...], ...] = ()
    total: int = 0
    chat: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Identifies the text, so that an evaluation can tell whether it was calibrated on."""
        text = f"{self.content}\0{self.total}" if self.total else self.content
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest() + _CHAT * self.chat

    def same_content(self, digest: str) -> bool:
        """Whether a digest is of this text, as it is or as dialogues."""
        return digest.removesuffix(_CHAT) == self.digest.removesuffix(_CHAT)

    @property
    def templated(self) -> bool:
        """Whether a chat template is needed to make windows of it."""
        return any(not isinstance(document, str) for piece in self.pieces for document in piece)

    def render(self, place: int, tokenizer: Any) -> str:
        """What a model reads of one piece; of a text without pieces the only one, 0.

        Raises:
            UsageError: there are dialogues, and the tokenizer has no chat template.
            DataError: the template refuses a dialogue.
        """
        if not self.templated:
            return join(self.pieces[place]) if self.total else self.content
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                f"the text {self.source} holds dialogues, and this model's tokenizer has no chat template to put them "
                "into; " + ("leave out --chat-template" if self.chat else "give a plain text, or a field 'text'")
            )
        # templates end a turn as the model was taught to: nothing stands between two dialogues
        return "".join(
            f"{document}\n\n" if isinstance(document, str) else _templated(document, tokenizer, self.source)
            for document in self.pieces[place]
        )

    def as_dialogues(self) -> Text:
        """The text with every plain document made into dialogues, see `read_dialogues`."""
        pieces = self.pieces or ((self.content,),)
        made: list[tuple[Document, ...]] = []
        for piece in pieces:
            documents: list[Document] = []
            for document in piece:
                documents += read_dialogues(document) if isinstance(document, str) else [document]
            made.append(tuple(documents))
        changed = any(isinstance(document, str) for piece in pieces for document in piece)
        source = f"{self.source} (chat template)" if changed else self.source
        return replace(self, source=source, pieces=tuple(made), chat=changed)


def join(documents: Iterable[Document]) -> str:
    """Documents as plain text, a blank line between two; of dialogues a paragraph each turn."""
    return "\n\n".join(
        document
        if isinstance(document, str)
        else "\n\n".join(f"{message.role}: {message.content}" for message in document)
        for document in documents
    )


def read_dialogues(text: str) -> list[Dialogue]:
    """The dialogues that a plain text holds.

    Lines that begin with `System:`, `User:` (or `Human:`) or `Assistant:` begin turns; a line of hyphens (`---`) or a
    `System:` that follows other turns begins another dialogue. In a text without such marks paragraphs are the user's
    and the assistant's in turn, two a dialogue.
    """
    found: list[Dialogue] = []
    marked = _MARK.search(text) is not None
    for part in _RULE.split(text):
        if marked:
            found += _marked(part)
            continue
        paragraphs = [paragraph.strip("\n") for paragraph in re.split(r"\n\s*\n", part) if paragraph.strip()]
        for start in range(0, len(paragraphs), 2):
            roles: tuple[Role, Role] = ("user", "assistant")
            pair = paragraphs[start : start + 2]
            found.append(tuple(Message(role, content) for role, content in zip(roles, pair, strict=False)))
    return found


def _marked(text: str) -> list[Dialogue]:
    marks = list(_MARK.finditer(text))
    turns: list[Message] = []
    if before := text[: marks[0].start() if marks else len(text)].strip():
        turns.append(Message("user", before))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns += [
        Message(ROLES[mark[1].lower()], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=False)
    ]
    found: list[Dialogue] = []
    start = 0
    for place, turn in enumerate(turns):
        if turn.role == "system" and place > start:
            found.append(tuple(turns[start:place]))
            start = place
    return [*found, tuple(turns[start:])] if turns else []


def _templated(dialogue: Dialogue, tokenizer: Any, source: str) -> str:
    try:
        return _apply(dialogue, tokenizer)
    except Exception:  # templates raise whatever they like, and many refuse systems, tools, or two turns of one speaker
        plain = _alternating(dialogue)
    try:
        return _apply(plain, tokenizer)
    except Exception as error:
        line = str(error).strip().splitlines()[:1]
        opening = dialogue[0].content[:40] if dialogue else ""
        raise DataError(
            f"the chat template refuses a dialogue of {source} that begins with {opening!r}: {''.join(line)}"
        ) from error


def _apply(dialogue: Dialogue, tokenizer: Any) -> str:
    messages = [{"role": message.role, "content": message.content} for message in dialogue]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _alternating(dialogue: Dialogue) -> Dialogue:
    """The same words said by a user and an assistant in turn, the user first."""
    turns: list[Message] = []
    for message in dialogue:
        role: Role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            turns[-1] = Message(role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(Message(role, message.content))
    if turns and turns[0].role == "assistant":
        turns.insert(0, Message("user", ""))
    return tuple(turns)
