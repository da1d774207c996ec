"""Arguments and attributes that share a line of a docstring get a line each in the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SHARED = re.compile(r"^( {4,})(\w+)((?:, \w+)+): (.*)$", re.MULTILINE)
_SECTIONS = re.compile(r"^ *(Args|Attributes):$", re.MULTILINE)


class SharedLines(griffe.Extension):
    """`bits, size: the budget` becomes `bits: the budget` and `size: see bits`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of whatever has just been read."""
        if obj.docstring and _SECTIONS.search(obj.docstring.value):
            obj.docstring.value = _SHARED.sub(_apart, obj.docstring.value)


def _apart(line: re.Match[str]) -> str:
    indent, first, others, text = line.groups()
    rest = [f"{indent}{name}: as `{first}`." for name in others.removeprefix(", ").split(", ")]
    return "\n".join([*rest, f"{indent}{first}: {text}"])
