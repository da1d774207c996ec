"""How the command line starts, and how errors become exit codes."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from nash_swarm import errors
from nash_swarm.cli import main as cli

HEAVY = ("torch", "numpy", "numba", "scipy", "transformers", "datasets", "safetensors")
COMMANDS = (
    "compress",
    "measure",
    "solve",
    "certify",
    "pack",
    "eval",
    "generate",
    "inspect",
    "solvers",
    "warmup",
    "demo",
)


@pytest.mark.parametrize("arguments", [["--help"], ["compress", "--help"], ["solve"], ["no-such-command"]])
def test_help_and_wrong_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from nash_swarm.cli.main import main\n"
        f"sys.argv = ['nash-swarm', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"heavy: [] {0 if '--help' in arguments else 2}"


def test_the_installed_command_starts() -> None:
    script = Path(sysconfig.get_path("scripts")) / "nash-swarm"
    done = subprocess.run([script, "solve", "none.npz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_prints_json(name: str, command: Any) -> None:
    told = command(name, "--help")
    assert told.code == 0
    assert "--json" in told.out


def test_no_arguments_show_the_help(command: Any) -> None:
    told = command()
    assert all(name in told.out + told.err for name in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.UsageError("no such thing"), 2, "nash-swarm: no such thing\n"),
        (errors.BudgetError("too small"), 2, "nash-swarm: too small\n"),
        (errors.DataError("damaged"), 1, "nash-swarm: damaged\n"),
        (errors.NashSwarmError("other"), 1, "nash-swarm: other\n"),
        (SystemExit(130), 130, "nash-swarm: interrupted; no half-written output is left\n"),
        (SystemExit(0), 0, ""),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    told = command("anything")
    assert (told.code, told.err, told.out) == (code, line, "")
