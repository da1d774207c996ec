"""Tables in Markdown: of reports, of what benchmarks print, and of the pages in docs/."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(head: Sequence[str], body: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a table.

    Args:
        head: names of the columns.
        body: cells of the rows.
        texts: how many columns from the left are text; the others hold numbers and stand to the right.
    """
    rule = "|" + "---|" * min(texts, len(head)) + "---:|" * (len(head) - texts)
    return [_line(head), rule, *map(_line, body)]


def rows_table(rows: Iterable[Mapping[str, Any]], formats: Mapping[str, str], texts: int = 1) -> list[str]:
    """The lines of a table of rows.

    Args:
        rows: of a record.
        formats: the columns, in order, and how their numbers are written (`format`).
        texts: see `markdown_table`.
    """
    return markdown_table(
        list(formats), [[number(row.get(name), how) for name, how in formats.items()] for row in rows], texts
    )


def number(value: Any, how: str) -> str:
    """The value as text: nothing for `None`, text as it is."""
    if value is None or isinstance(value, str):
        return value or ""
    return format(value, how)


def escape(text: str) -> str:
    """The text on one line of a cell or heading."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"
