"""What is shown of long work: bars on terminals, lines in files, nothing where nobody wants it."""

from __future__ import annotations

import ast
import io
import os
import re
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from nash_swarm import progress

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _standard_error(terminal: bool) -> redirect_stderr[io.StringIO]:
    return redirect_stderr(Terminal() if terminal else io.StringIO())


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def _work(total: int, done: int = 0, quiet: bool = False) -> None:
    with progress.working(total, label="pack gptq", unit="matrix", done=done, quiet=quiet) as work:
        for _ in range(total - done):
            work.update()


@pytest.mark.parametrize(("total", "lines"), [(211, 10), (10, 10), (3, 3), (1, 1), (0, 0)])
def test_a_log_file_gets_a_line_every_tenth(total: int, lines: int) -> None:
    with _standard_error(False) as log:
        _work(total)
        told = log.getvalue()
        assert "\r" not in told
        assert len(told.splitlines()) == lines
        assert all(line.startswith("pack gptq: ") and "matrices" in line for line in told.splitlines())
        if total:
            assert f"100% ({total} of {total} matrices) in 0:00" in told.splitlines()[-1]
            assert "left" not in told.splitlines()[-1] and all("left" in line for line in told.splitlines()[:-1])


def test_steps_of_many_units_are_one_line() -> None:
    with _standard_error(False) as log:
        with progress.working(100, label="x", unit="step") as work:
            work.update(55)
            work.describe("y")
            work.note("KL 0.1")
            work.update(45)
        one, other = log.getvalue().splitlines()
        assert one.startswith("x: 55% (55 of 100 steps) in 0:00, about 0:00 left")
        assert other.startswith("y: 100%") and other.endswith(", KL 0.1")


def test_what_an_earlier_run_did_is_told_and_not_counted_as_fast_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with _standard_error(False) as log:
        now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        with progress.working(10, label="x", unit="cell", done=8) as work:
            now += 3600
            work.update()
        assert log.getvalue().splitlines() == [
            "x: 80% (8 of 10 cells) from an earlier run",
            "x: 90% (9 of 10 cells) in 1:00:00, about 1:00:00 left",
        ]


def test_a_terminal_gets_a_bar() -> None:
    with _standard_error(True) as terminal:
        _work(20)
        assert "\r" in terminal.getvalue() and "20/20" in terminal.getvalue()


def test_a_dumb_terminal_is_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with _standard_error(True) as terminal:
        monkeypatch.setenv("TERM", "dumb")
        _work(20)
        assert "\r" not in terminal.getvalue() and len(terminal.getvalue().splitlines()) == 10


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("how", ["quiet", "TQDM_DISABLE"])
def test_nothing_is_said_to_who_does_not_want_it(terminal: bool, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _standard_error(terminal) as shown:
        if how == "TQDM_DISABLE":
            monkeypatch.setenv(how, "1")
        _work(20, quiet=how == "quiet")
        assert list(progress.over([1, 2], label="x", unit="step", quiet=how == "quiet")) == [1, 2]
        with progress.watching("solve x", quiet=how == "quiet", patience=0.0, beat=0.0) as tell:
            tell(0.5)
            time.sleep(0.05)
    assert shown.getvalue() == ""


def test_items_come_in_order_and_are_counted() -> None:
    with _standard_error(False) as log:
        assert list(progress.over("abc", label="read", unit="letter")) == ["a", "b", "c"]
        assert [line.split(" letters")[0] for line in log.getvalue().splitlines()] == [
            "read: 33% (1 of 3", "read: 67% (2 of 3", "read: 100% (3 of 3",
        ]  # fmt: skip


@pytest.mark.parametrize("terminal", [False, True])
def test_quick_work_of_unknown_length_is_not_mentioned(terminal: bool) -> None:
    with _standard_error(terminal) as shown, progress.watching("solve nash") as tell:
        tell(0.9)
    assert shown.getvalue() == ""


def test_work_that_says_nothing_is_shown_by_its_time() -> None:
    with _standard_error(False) as log:
        with progress.watching("solve milp", patience=0.0, beat=0.4):
            time.sleep(1.3)
        lines = log.getvalue().splitlines()
        assert "\r" not in log.getvalue()
        assert 2 <= len(lines) <= 4
        assert all(re.fullmatch(r"solve milp: 0:0\d so far", line) for line in lines[:-1])
        assert re.fullmatch(r"solve milp: done in 0:0\d", lines[-1])


def test_work_that_tells_its_share_gets_a_line_a_tenth() -> None:
    with _standard_error(False) as log:
        with progress.watching("solve dp", patience=0.0) as tell:
            for share in (0.05, 0.42, 0.41, 0.44):
                tell(share)
                time.sleep(0.6)
        first, last = log.getvalue().splitlines()
        assert re.fullmatch(r"solve dp: 4\d% in 0:0\d, about 0:0\d left", first)
        assert last.startswith("solve dp: done in")


def test_a_terminal_shows_the_share_in_one_line() -> None:
    with _standard_error(True) as terminal:
        with progress.watching("solve dp", patience=0.0) as tell:
            time.sleep(0.1)
            tell(0.5)
            time.sleep(0.6)
        assert re.search(r"\rsolve dp:  50%, 0:0\d, about 0:0\d left", terminal.getvalue())
        assert terminal.getvalue().count("\n") == 1


def test_an_error_goes_through_and_ends_the_showing() -> None:
    with _standard_error(False) as log:
        with pytest.raises(ZeroDivisionError), progress.watching("solve x", patience=0.0, beat=0.0):
            raise ZeroDivisionError
        before = log.getvalue()
        time.sleep(0.6)
        assert log.getvalue() == before


@pytest.mark.parametrize("terminal", [False, True])
def test_downloads_draw_no_bars_into_a_log_file(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, data = "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"
    monkeypatch.setenv(hub, "0")
    monkeypatch.delenv(data, raising=False)
    with _standard_error(terminal), progress.plain_downloads():
        assert os.environ[hub] == "0"
        assert os.environ.get(data) == (None if terminal else "1")
    assert os.environ[hub] == "0" and data not in os.environ


def test_bars_are_drawn_in_one_place() -> None:
    importers = []
    for folder in ("nash_swarm", "solvers", "quantizers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                importers += [path.name for name in names if name.split(".")[0] == "tqdm"]
    assert importers == ["progress.py"]
