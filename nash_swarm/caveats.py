"""What stands beside a figure, so that nobody takes it for more than it is."""

from __future__ import annotations

FEWEST_TOKENS = 2000
"""Figures on fewer say so."""


def counted(tokens: int, text: str = "", what: str = "tokens") -> str:
    """How many tokens a figure is a mean over, of which text, and whether they are too few to judge by."""
    told = f"{tokens:,} {what}{f' of {text}' if text else ''}"
    return told if tokens >= FEWEST_TOKENS else f"{told} only: too few to judge"
