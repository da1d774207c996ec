"""Texts and tokenizers that let tests see which part of a text a window shows."""

from __future__ import annotations

from typing import Any

import numpy as np


class Numbered:
    """One token a word, and words are numbers: a token is its own place in the text. Counts what it is given."""

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        self.characters += len(text)
        return {"input_ids": [int(word) for word in text.split()]}


class Spy:
    """Another tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0
        self.chat_template = getattr(tokenizer, "chat_template", None)

    def __call__(self, text: str, **how: Any) -> Any:
        self.characters += len(text)
        return self.tokenizer(text, **how)

    def save_pretrained(self, folder: Any) -> None:
        """Nothing to save."""


class Words:
    """One token a word, several words a token."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [len(word) * 131 + ord(word[0]) for word in text.split()]}


class Talker:
    """A tokenizer of bytes with a chat template in Python."""

    chat_template = "a template"

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [byte % 101 for byte in text.encode()]}

    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        if self.strict and [message["role"] for message in messages] != ["user", "assistant"] * (len(messages) // 2):
            raise ValueError("Conversation roles must alternate\nand more")
        return "".join(f"<{message['role']}>{message['content']}</>" for message in messages)


def numbers(count: int, *, line: int = 11, paragraph: int = 5) -> str:
    """The numbers from 0, some a line, some lines a paragraph."""
    lines = [" ".join(map(str, range(start, min(start + line, count)))) for start in range(0, count, line)]
    return "\n".join(each + "\n" * (place % paragraph == 0) for place, each in enumerate(lines))


def made(paragraphs: int) -> str:
    """Paragraphs of made-up words, always the same."""
    rng = np.random.default_rng(7)
    words = ["".join(map(chr, rng.integers(97, 123, int(k)))) for k in rng.integers(2, 9, 500)]
    return "\n\n".join(" ".join(words[i] for i in rng.integers(0, 500, 80)) for _ in range(paragraphs))
