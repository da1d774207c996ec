"""What users of such tools expect: a version, early refusals, readable help, prompts from a pipe, time limits."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import nash_swarm
from nash_swarm.cli.main import app
from nash_swarm.errors import TimeLimitWarning
from nash_swarm.solvers import milp
from nash_swarm.solvers._branching import Answer

COMPRESS = ["compress", "./none", "-o", "new"]
BITS = ["--bits", "3"]
BENCH = ["bench", "./none", "-o", "new"]
REFUSED = [
    (["compress", "./none", "-o", "new", "--bits", "-1"], "positive"),
    ([*COMPRESS, *BITS, "--size", "60MB"], "once"),
    (COMPRESS, "once"),
    ([*COMPRESS, "--size", "60potatoes"], "60potatoes"),
    ([*COMPRESS, *BITS, "--solver", "nope"], "no solver"),
    ([*COMPRESS, *BITS, "--quantizer", "nope"], "no quantizer"),
    ([*COMPRESS, *BITS, "--damage", "nope"], "no damage"),
    ([*COMPRESS, *BITS, "--effort", "nope"], "unknown effort"),
    ([*COMPRESS, *BITS, "--granularity", "nope"], "--granularity"),
    ([*COMPRESS, *BITS, "--scope", "nope"], "--scope"),
    ([*COMPRESS, *BITS, "--levels", "nope"], "--levels"),
    ([*COMPRESS, *BITS, "--granularity", "parameter", "--levels", "normal"], "levels are uniform"),
    ([*COMPRESS, *BITS, "--strategies", "2,7"], "[7]"),
    ([*COMPRESS, *BITS, "--group-size", "33"], "group_size"),
    ([*COMPRESS, *BITS, "--max-memory", "much"], "'much'"),
    ([*COMPRESS, *BITS, "--keep", "lm_head"], "lm_head"),
    ([*COMPRESS, *BITS, "--forbid", "lm_head=x"], "lm_head=x"),
    ([*COMPRESS, *BITS, "--fuse", "q_proj"], "fuse"),
    ([*COMPRESS, *BITS, "--solver", "milp", "--time-limit", "0"], "--time-limit"),
    ([*COMPRESS, *BITS, "--solver", "nash", "--time-limit", "5"], "these have one: milp"),
    ([*COMPRESS[:2], "-o", "-", *BITS], "not a stream"),
    (["demo", "-o", "-"], "not a stream"),
    (["inspect", "./none", "--html", "-"], "not a stream"),
    (["eval", "./none", "--tasks", "cloze", "--save-tasks", "-"], "not a stream"),
    (["measure", "./none", "-o", "new", "--damage", "nope"], "no damage"),
    (["measure", "./none", "-o", "new", "--granularity", "nope"], "--granularity"),
    (["measure", "./none", "-o", "new", "--strategies", "2,7"], "[7]"),
    (["measure", "./none", "-o", "new", "--group-size", "33"], "group_size"),
    (["measure", "./none", "-o", "new", "--max-memory", "much"], "'much'"),
    (["solve", "none.npz", "-o", "new"], "once"),
    (["solve", "none.npz", "-o", "new", "--bits", "0"], "positive"),
    (["solve", "none.npz", "-o", "new", *BITS, "--solver", "nope"], "no solver"),
    (["solve", "none.npz", "-o", "-", *BITS], "not a stream"),
    (["pack", "./none", "none.json", "-o", "new", "--quantizer", "nope"], "no quantizer"),
    (["pack", "./none", "none.json", "-o", "new", "--max-memory", "much"], "'much'"),
    (["demo", "-o", "new", "--bits", "-3"], "positive"),
    (["demo", "-o", "new", "--solver", "nope"], "no solver"),
    ([*BENCH, "--solvers", "nope"], "no solver"),
    ([*BENCH, "--bits", "0"], "positive"),
    ([*BENCH, "--bits", "three"], "'three'"),
    ([*BENCH, "--quantizer", "nope"], "no quantizer"),
    ([*BENCH, "--damage", "nope"], "no damage"),
    ([*BENCH, "--granularity", "tile,nope"], "--granularity"),
    ([*BENCH, "--strategies", "2,7"], "[7]"),
    ([*BENCH, "--activations", "int16"], "int8, fp32"),
    ([*BENCH[:2], "-o", "-"], "not a stream"),
    (["bench-solvers", "-o", "new", "--solvers", "nope"], "no solver"),
    (["bench-solvers", "-o", "new", "--sizes", "many"], "'many'"),
    (["bench-solvers", "-o", "new", "--memory", "much"], "'much'"),
    (["bench-solvers", "-o", "new", "--limit", "0"], "--limit"),
    (["bench-solvers", "-o", "new", "--games", "nope"], "nope"),
    (["eval", "./none", "--task-path", "tasks"], "--tasks"),
    (["generate", "./none", "x", "--temperature", "-1"], "temperature"),
    (["generate", "./none", "x", "--temperature", "nan"], "temperature"),
    (["generate", "./none", "x", "--top-k", "-1"], "top-k"),
    (["generate", "./none", "x", "--top-p", "0"], "top-p"),
    (["generate", "./none", "x", "--top-p", "1.5"], "top-p"),
    (["generate", "./none", "x", "--sample", "--temperature", "0"], "--sample"),
    (["generate", "./none", "x", "--top-k", "5", "--temperature", "0"], "top-k"),
    (["generate", "./none", "x", "--stop", ""], "--stop"),
    (["generate", "./none", "x", "--system", "Be brief."], "--chat"),
]


def test_what_words_alone_refuse_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """All in one process: whatever one of them imported would be seen after it."""
    code = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from nash_swarm.cli.main import main
told = []
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ['nash-swarm', *arguments]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
    told.append([code, out.getvalue(), err.getvalue(), [m for m in ('torch', 'transformers') if m in sys.modules]])
print(json.dumps(told))
"""
    asked = json.dumps([arguments for arguments, _ in REFUSED])
    done = subprocess.run(
        [sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    for (arguments, word), (status, out, err, heavy) in zip(REFUSED, json.loads(done.stdout), strict=True):
        assert status == 2 and not out, (arguments, err)
        assert err.startswith("nash-swarm: ") and err.count("\n") == 1 and word in err, (arguments, err)
        assert not heavy, arguments
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, command: Any) -> None:
    told = command(flag)
    assert (told.code, told.out, told.err) == (0, f"nash-swarm {nash_swarm.__version__}\n", "")


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nash_swarm.cli.main import main\nsys.argv = ['nash-swarm', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'numba', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"nash-swarm {nash_swarm.__version__}\n[]\n"


COMMANDS = {c.name: c for c in typer.main.get_command(app).commands.values()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_in_80_columns(name: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    told = command(name, "-h").out
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told, "something is cut off"
    shown = set(re.split(r"[\s│╭╮╰╯─]+", told))
    for option in COMMANDS[name].params:
        if getattr(option, "hidden", False):  # the former name of another one
            assert not set(option.opts) & shown
            continue
        assert {part for part in [*option.opts, *option.secondary_opts] if part.startswith("-")} <= shown
        broken = set((getattr(option, "help", None) or "").split()) - shown
        assert not broken, f"{option.name}: broken words {broken}"


def test_the_help_of_compress_comes_in_groups(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = command("compress", "--help").out
    groups = re.findall(r"^╭─ ([^─]+) ─", told, flags=re.M)
    assert groups == [
        "Arguments", "Options", "Budget", "Text", "What an agent is", "Speed and quality", "Loading the model",
        "Output",
    ]  # fmt: skip
    parts = dict(zip(groups, re.split(r"^╭─ .*$", told, flags=re.M)[1:], strict=True))
    assert re.findall(r"--[a-z-]+", parts["Options"]) == ["--help"]
    for group, option in {
        "Budget": "--size", "Text": "--windows", "What an agent is": "--keep", "Speed and quality": "--effort",
        "Output": "--overwrite",
    }.items():  # fmt: skip
        assert option in parts[group]


@pytest.mark.parametrize(("typed", "meant"), [("comprss", "compress"), ("generat", "generate")])
def test_a_mistyped_command_is_answered_with_the_right_one(typed: str, meant: str, command: Any) -> None:
    told = command(typed)
    assert told.code == 2 and f"Did you mean '{meant}'" in told.err


def test_stages_write_lines_into_a_log_file(stages: Any, command: Any, bench: Any, tmp_path: Path) -> None:
    told = command("pack", bench.model, stages.allocation, "-o", tmp_path / "again")
    assert told.code == 0 and "\r" not in told.err
    assert re.search(r"^pack descent: 100% \(\d+ of \d+ matrices\) in 0:\d\d$", told.err, flags=re.M)
    quiet = command("pack", bench.model, stages.allocation, "-o", tmp_path / "quiet", "-q")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_time_limit_reaches_the_solver_and_the_gap_the_user(
    stages: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def nothing(program: Any, limit: float) -> Answer:
        asked.append(limit)
        return Answer(np.zeros(0), -np.inf, False)

    monkeypatch.setattr(milp, "branch_and_bound", nothing)
    # a game in which nobody is indifferent would leave nothing to decide
    monkeypatch.setattr(milp.Milp, "reduce", False)
    monkeypatch.setattr(milp.Milp.__init__, "__defaults__", (60.0, False))
    out = tmp_path / "allocation.json"
    with warnings.catch_warnings():
        warnings.simplefilter("always", TimeLimitWarning)
        told = command("solve", stages.game, "--bits", 5, "-o", out, "--solver", "milp", "--time-limit", 7, "--json")
    assert told.code == 0 and asked == [7.0]
    assert re.fullmatch(
        r"nash-swarm: milp: the time limit of 7 s was reached; the damage is proven to be within \S+ % of the least "
        r"possible\n",
        told.err,
    )
    written = json.loads(out.read_text())
    assert written["hyperparameters"]["time_limit"] == 7
    assert written["trace"][-1]["proven"] == 0
    assert 0 <= written["trace"][-1]["gap"] <= told.values["certificate"]["gap"] * (1 + 1e-9)


def _pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("words", [["-"], []])
def test_the_prompt_may_come_through_a_pipe(
    words: list[str], ending: bytes, stages: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pipe(monkeypatch, "Python is\nä".encode() + ending)
    told = command("generate", stages.packed, *words, "--tokens", 3, "--json").values
    assert told["prompt"] == "Python is\nä"
    assert told["text"] == command("generate", stages.packed, "Python is\nä", "--tokens", 3, "--json").values["text"]


def test_a_prompt_that_is_missing_or_no_text_is_refused(
    stages: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pipe(monkeypatch, b"\xff\xfe")
    told = command("generate", stages.packed)
    assert told.code == 1 and told.err == "nash-swarm: the prompt from standard input is no UTF-8 text\n"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    told = command("generate", stages.packed)
    assert told.code == 2 and "give a prompt" in told.err


def test_what_is_printed_as_it_is_written_is_the_text(stages: Any, command: Any) -> None:
    asked = ["generate", stages.packed, "Python is", "--tokens", 12, "--temperature", 0.7, "--top-k", 40, "--seed", 3]
    text = command(*asked, "--json").values["text"]
    assert len(text) > 8
    assert command(*asked).out == text + "\n"
    stop = text[5:8]
    assert command(*asked, "--stop", stop, "--stop", "never").out == text[: text.find(stop)] + "\n"


def test_the_former_name_of_baselines_is_taken(bench: Any, command: Any, tmp_path: Path) -> None:
    how = ("compress", bench.model, "--bits", 6, "--text", bench.text, "--windows", 2, "--eval-windows", 0, "-o")
    for option in ("--no-contest", "--no-baselines"):
        told = command(
            *how, tmp_path / option.strip("-"), "--damage", "magnitude", "--quantizer", "rtn", option, "--json"
        )
        assert told.code == 0 and json.loads(told.out)["trial_kl"] == {}, told.err
