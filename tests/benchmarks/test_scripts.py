"""What all benchmarks have in common: a command line that their first lines show, and figures as JSON."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from support.benchmarks import BENCHMARKS, parse

SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem != "reporting")
NO_FIGURES = {"gpt2_model", "reference_model"}


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_first_lines_show_commands_that_parse(path: Path) -> None:
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert told is not None
    # what is in brackets may be left out
    lines = re.sub(r"\[[^\]]*\]", "", told.replace("\\\n", " "))
    commands = re.findall(rf"^ {{4}}python benchmarks/{path.name}\b(.*)", lines, re.MULTILINE)
    assert commands
    for command in commands:
        parser = parse(path.stem, shlex.split(command, comments=True))
        assert path.stem in NO_FIGURES or "--json" in parser.format_help()
