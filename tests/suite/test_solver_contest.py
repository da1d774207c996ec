"""`bench-solvers`: its figures against certificates, and what happens to solvers that cannot do a game."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from nash_swarm import registry
from nash_swarm.cli.main import app
from nash_swarm.errors import UsageError
from nash_swarm.game import BitGame
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.dp import Dp
from nash_swarm.solvers.uniform import Uniform
from nash_swarm.suite.folder import ReportFolder
from nash_swarm.suite.synthetic import contest
from nash_swarm.suite.synthetic.contest import COLUMNS, DONE, compare_solvers
from nash_swarm.suite.synthetic.games import budget_of, make_game


@dataclass(frozen=True)
class Sleepy(Solver):
    """Too slow for games above 400 agents."""

    name: ClassVar[str] = "sleepy"
    summary: ClassVar[str] = "sleeps"

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        time.sleep(600 if game.agents > 400 else 0)
        return Play(np.zeros(game.agents, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> ReportFolder:
    return ReportFolder(tmp_path / "contest", kinds=contest.KINDS)


def test_figures_are_those_of_the_certificate(folder: ReportFolder) -> None:
    names = ["lagrangian", "nash", "uniform"]
    rows = compare_solvers(folder, names, families=("coupled", "ties"), sizes=(150,), limit=600, quiet=True)
    assert [(row["game"], row["solver"]) for row in rows] == [(f, n) for f in ("coupled", "ties") for n in names]
    for row in rows:
        assert row["status"] == DONE and tuple(row) == COLUMNS
        game = make_game(row["game"], 150)
        told = registry.create("solvers", row["solver"]).solve(game, budget_of(game)).certificate
        assert row["damage"] == pytest.approx(told.predicted_damage, rel=1e-12)
        assert row["lower bound"] == pytest.approx(told.lower_bound, rel=1e-12)
        assert row["gap"] == pytest.approx(told.gap, abs=1e-9)
        assert row["potential"] > row["damage"]
        if row["solver"] != "uniform":
            assert row["unilateral regret"] == pytest.approx(told.unilateral_regret, abs=1e-12)
        assert row["seconds"] > 0 and row["peak memory MB"] > row["tables MB"]


def test_what_cannot_be_measured_says_why(folder: ReportFolder) -> None:
    rows = compare_solvers(
        folder, [Sleepy(), Dp(most_cells=1000)], families=("separable",), sizes=(300, 500, 600, 10**6), limit=1.0,
        most_memory=1e7, quiet=True,
    )  # fmt: skip
    status = {(row["solver"], row["agents"]): row["status"] for row in rows}
    assert status["sleepy", 300] == DONE
    assert status["sleepy", 500] == "took more than 1 s"
    assert status["sleepy", 600] == "skipped: 5e+02 agents took more than 1 s"
    assert status["dp", 600].startswith("dp: 600 agents need a table of at least 1200 cells")
    assert status["sleepy", 10**6] == status["dp", 10**6] == "skipped: the tables take 0.1 GB, more than 0.01 GB"
    assert all(row["damage"] is None for row in rows if row["status"] != DONE)


def test_bad_questions_are_refused(folder: ReportFolder) -> None:
    with pytest.raises(UsageError, match="no solver named 'nobody'"):
        compare_solvers(folder, ["nobody"], quiet=True)
    with pytest.raises(UsageError, match="no synthetic game"):
        compare_solvers(folder, ["nash"], families=("poker",), quiet=True)
    with pytest.raises(UsageError, match="at least one"):
        compare_solvers(folder, ["nash"], sizes=(), quiet=True)
    with pytest.raises(UsageError, match="at least one agent"):
        compare_solvers(folder, ["nash"], sizes=(0,), quiet=True)


def test_the_command_writes_one_table_three_ways(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["bench-solvers", "--solvers", "uniform,lagrangian", "--games", "ties,heavy-tailed", "--sizes", "1e2"]
    words += ["-o", str(out), "-q"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0 and "heavy-tailed games" in done.stdout
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["seed"] == 0 and {"nash-swarm", "numpy"} <= set(results["versions"])
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(results["rows"]) == 4
    for line, row in zip(lines, results["rows"], strict=True):
        assert tuple(line) == COLUMNS
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}
    report = (out / "report.md").read_text(encoding="utf-8")
    assert report.count("\n| 1e+02 | ") == 4 and "## ties" in report


def test_finished_measurements_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    alone = contest.run_alone

    def counted(task: Any, *arguments: Any, limit: float) -> Any:
        asked.append(task.__name__)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return alone(task, *arguments, limit=limit)

    def compare(path: Path, limit: float = 1.0) -> list[Any]:
        folder = ReportFolder(path, kinds=contest.KINDS)
        return compare_solvers(
            folder, [Sleepy(), Uniform()], families=("ties",), sizes=(300, 500), limit=limit, quiet=True
        )

    monkeypatch.setattr(contest, "run_alone", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "out")
    assert asked == ["find_reference", "measure_solver", "measure_solver", "find_reference"]
    rows = compare(tmp_path / "out")  # the rest: a bound and two solvers, one of them too slow
    assert asked[4:] == ["find_reference", "measure_solver", "measure_solver"]
    assert [row["status"] for row in rows] == [DONE, DONE, "took more than 1 s", DONE]
    assert compare(tmp_path / "out") == rows and len(asked) == 7
    lost = next(file for file in (tmp_path / "out" / "cells").iterdir() if "took more" in file.read_text("utf-8"))
    lost.write_text("", encoding="utf-8")
    assert [row["status"] for row in compare(tmp_path / "out")] == [row["status"] for row in rows]
    assert asked[7:] == ["measure_solver"]
    compare(tmp_path / "out", limit=1.1)
    assert len(asked) == 8 + 6


@pytest.mark.parametrize("sizes", ["many", "1.5", "inf", "1e3,nan"])
def test_sizes_are_whole_numbers(sizes: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench-solvers", "--sizes", sizes, "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, UsageError) and "whole numbers" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_the_figure_has_a_line_for_every_solver(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from nash_swarm.suite.synthetic.figure import draw

    rows = [
        {"game": game, "agents": agents, "solver": solver, "seconds": 1e-3 * agents, "gap": 0.0,
         "added by the solver MB": None if solver == "nash" else 1.0}
        for game in ("ties", "coupled") for agents in (10, 100) for solver in ("nash", "uniform")
    ]  # fmt: skip
    assert draw(rows, tmp_path / "figure") == [tmp_path / "figure.png", tmp_path / "figure.svg"]
    drawing = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert drawing.count('<g id="axes_') == 6
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
