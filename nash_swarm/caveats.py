"""Notes on the reliability of a figure."""

from __future__ import annotations

FEWEST_TOKENS = 2000
"""Figures on fewer tokens are marked as unreliable."""


def counted(tokens: int, text: str = "", what: str = "tokens") -> str:
    """Number of tokens (or `what`) and text that a figure is a mean over, with a note if they are too few."""
    told = f"{tokens:,} {what}{f' of {text}' if text else ''}"
    return told if tokens >= FEWEST_TOKENS else f"{told} only: too few to judge"
