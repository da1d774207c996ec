"""Solvers that may take long: time limits, and progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.errors import DataError, TimeLimitWarning, UsageError
from nash_swarm.game import BitGame, Budget
from nash_swarm.pipeline.solving import make_solver
from nash_swarm.solvers import Play, _branching, milp
from nash_swarm.solvers.base import Callback, Progress, ignore_progress
from nash_swarm.solvers.dp import Dp
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.milp import Milp
from nash_swarm.suite.synthetic.games import budget_of, make_game
from nash_swarm.testing import check_solver


@pytest.fixture(scope="module")
def played() -> BitGame:
    return make_game("ties", 300, 3)


def test_a_process_of_its_own_finds_what_this_one_finds(played: BitGame, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = budget_of(played)
    here = Milp(reduce=False).solve(played, budget)
    calls = []
    original = _branching._solve_apart
    monkeypatch.setattr(_branching, "_LARGE", 0)
    monkeypatch.setattr(_branching, "_solve_apart", lambda *a: calls.append(a) or original(*a))
    there = Milp(reduce=False).solve(played, budget)
    assert calls
    assert np.array_equal(here.choices, there.choices)
    assert dict(here.trace[-1]) == dict(there.trace[-1])
    assert there.trace[-1]["proven"] and there.trace[-1]["gap"] < 1e-6


def test_a_process_that_overruns_is_ended_and_the_lagrangian_solution_stands(
    played: BitGame, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = budget_of(played)
    monkeypatch.setattr(_branching, "_LARGE", 0)
    monkeypatch.setattr(_branching, "_GRACE", 0.01)
    ended = []
    original = _branching.subprocess.run

    def run(*arguments: Any, **settings: Any) -> Any:
        try:
            return original(*arguments, **settings)
        except _branching.subprocess.TimeoutExpired:
            ended.append(settings["timeout"])
            raise

    monkeypatch.setattr(_branching.subprocess, "run", run)
    with pytest.warns(TimeLimitWarning, match=r"milp: the time limit of 0.01 s was reached; .* within .* %"):
        found = Milp(time_limit=0.01, reduce=False).solve(played, budget)
    assert ended == [pytest.approx(0.021)]
    assert not found.trace[-1]["proven"]
    assert found.trace[-1]["gap"] == pytest.approx(found.certificate.gap, abs=1e-12)
    assert found.certificate.predicted_damage <= Lagrangian().solve(played, budget).certificate.predicted_damage


def test_the_time_limit_is_a_setting_of_the_solver() -> None:
    limited = make_solver("milp", 12.0)
    assert isinstance(limited, Milp) and limited.time_limit == 12.0
    assert make_solver("milp") == Milp()
    with pytest.raises(UsageError, match=r"'nash' has no time limit; these have one: .*milp"):
        make_solver("nash", 12.0)
    with pytest.raises(UsageError, match="positive"):
        make_solver("milp", 0.0)


@pytest.mark.parametrize("name", ["annealing", "dp", "nash-swarm", "swarm"])
def test_long_play_tells_how_far_it_is(name: str) -> None:
    game = make_game("coupled" if "swarm" in name else "separable", 60, 0)
    shares: list[float] = []
    registry.create("solvers", name).solve(game, budget_of(game), progress=shares.append)
    assert shares == sorted(shares) and len(set(shares)) > (0 if name == "dp" else 10)
    assert shares[0] >= 0 and 0.9 < shares[-1] <= 1


def test_dp_fills_its_table_in_parts(played: BitGame, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = budget_of(played)
    whole = Dp().solve(played, budget)
    monkeypatch.setattr("nash_swarm.solvers.dp._CELLS_AT_ONCE", 1)
    shares: list[float] = []
    parts = Dp().solve(played, budget, progress=shares.append)
    assert np.array_equal(whole.choices, parts.choices)
    assert shares == [(number + 1) / 300 for number in range(300)]


@dataclass(frozen=True)
class Backwards(Lagrangian):
    name: ClassVar[str] = "backwards"

    def play(
        self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback,
        progress: Progress = ignore_progress,
    ) -> Play:  # fmt: skip
        progress(0.5)
        progress(0.4)
        return super().play(game, capacity, rng=rng, callback=callback)


def test_the_contract_suite_notices_progress_that_falls() -> None:
    with pytest.raises(AssertionError, match="rising share"):
        check_solver(Backwards(), examples=1)


def test_solvers_without_progress_play_as_before(played: BitGame) -> None:
    shares: list[float] = []
    found = Lagrangian().solve(played, budget_of(played), progress=shares.append)
    assert shares == [] and found.certificate.used_bits


def test_a_long_play_is_mentioned_and_quiet_is_not(
    played: BitGame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from nash_swarm import progress
    from nash_swarm.pipeline import solving

    def slow(*arguments: Any) -> _branching.Answer:
        time.sleep(0.2)
        return _branching.Answer(np.zeros(0), -np.inf, True)

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(milp, "branch_and_bound", slow)
    monkeypatch.setattr(
        solving, "watching", lambda label, quiet: progress.watching(label, quiet=quiet, patience=0.05, beat=0.0)
    )
    bits = Budget.of_size(budget_of(played).total_bits // 8).total_bits / played.parameters
    ns.solve(played, bits=bits, solver=Milp(reduce=False))
    assert "solve milp: 0:00 so far\n" in capsys.readouterr().err
    ns.solve(played, bits=bits, solver=Milp(reduce=False), quiet=True)
    assert capsys.readouterr().err == ""


def test_a_process_that_fails_is_no_time_limit(played: BitGame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_branching, "_LARGE", 0)
    monkeypatch.setattr(_branching.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="HiGHS ended without an answer"):
        Milp(time_limit=30, reduce=False).solve(played, budget_of(played))
