"""Optional packages: which are missing, and how to install them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec


def missing(modules: Sequence[str]) -> list[str]:
    """The top-level modules among `modules` that are not installed."""
    return [module for module in modules if find_spec(module) is None]


def how_to_install(extra: str) -> str:
    """The command that installs an extra of `pyproject.toml`, from an index and from a checkout, for messages."""
    return f'run: pip install "nash-swarm[{extra}]" (from a checkout: pip install -e ".[{extra}]")'
