"""What all benchmarks have in common: a command line that their first lines show, and figures as JSON."""

import argparse
import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BENCHMARKS, parse, script

SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in ("reporting", "tables"))
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


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_no_script_writes_over_what_it_did_not_write(path: Path, tmp_path: Path, capsys: Any) -> None:
    """Refused when the command line is read, before any work."""
    mine = tmp_path / "mine"
    mine.write_text("hours of work")
    for suffix in (".png", ".svg"):
        (tmp_path / f"mine{suffix}").touch()
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    lines = re.sub(r"\[[^\]]*\]", "", told.replace("\\\n", " "))
    words = shlex.split(
        re.findall(rf"^ {{4}}python benchmarks/{path.name}\b(.*)", lines, re.MULTILINE)[0], comments=True
    )
    outputs = [name for name in ("--json", "--csv", "--markdown", "--plot") if name in told or name == "--json"]
    cases = (
        [[*words[:-1], str(tmp_path)]] if path.stem in NO_FIGURES else [[*words, name, str(mine)] for name in outputs]
    )
    for case in cases:
        with pytest.raises(SystemExit):
            parse(path.stem, case)
        assert re.search("exists; name another|is no empty folder", capsys.readouterr().err)
    assert mine.read_text() == "hours of work"


def test_figures_of_an_earlier_run_are_taken_up(tmp_path: Path) -> None:
    reporting = script("reporting")
    path = tmp_path / "figures.json"
    reporting.write_json(path, {**reporting.origin(), "rows": []})
    assert reporting.own_file(reporting.FIGURES)(str(path)) == path
    with pytest.raises(argparse.ArgumentTypeError):
        reporting.new_file(str(path))
