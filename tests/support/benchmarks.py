"""The scripts of `benchmarks/`, imported by file, and their command lines, which are parsed and not run."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHARED = ("reporting", "peer_tools", "speed", "solvers", "original/methods", "original/padding")
"""What scripts import from beside them, under the last parts of these names."""


def script(name: str) -> ModuleType:
    """`benchmarks/NAME.py`, imported once.

    Not by the path of imports: one of them has the name of a package that transformers looks for (`kernels`).
    """
    for shared in SHARED:
        _load(shared, Path(shared).name)
    return _load(name, name if name in SHARED else f"benchmark_{name.replace('/', '_')}")


def _load(name: str, module_name: str) -> ModuleType:
    if module_name not in sys.modules:
        file = BENCHMARKS / name / "__init__.py" if (BENCHMARKS / name).is_dir() else BENCHMARKS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(module_name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module_name])
    return sys.modules[module_name]


class _Parsed(Exception):
    """Ends a script when it knows what it was asked."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parse(name: str, words: list[str]) -> argparse.ArgumentParser:
    """The script's parser, after it has taken the words.

    Raises:
        SystemExit: it does not take them.
    """
    parse_args = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, *given: Any) -> None:
        parse_args(self, *given)
        raise _Parsed(self)

    module = script(name)
    with patch.object(argparse.ArgumentParser, "parse_args", only_parse), patch.object(sys, "argv", [name, *words]):
        try:
            module.main()
        except _Parsed as parsed:
            return parsed.parser
    raise AssertionError(f"benchmarks/{name}.py does not parse its command line")


def run(name: str, *words: object) -> None:
    """The script with these words on its command line, in this process."""
    module = script(name)
    with patch.object(sys, "argv", [str(BENCHMARKS / f"{name}.py"), *map(str, words)]):
        module.main()
