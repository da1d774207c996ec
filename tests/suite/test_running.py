"""A benchmark run on a tiny model: every cell is measured, identical allocations are packed once, nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench

import nash_swarm as ns
from nash_swarm.artifacts.accounting import REPORT_BYTES
from nash_swarm.calibration.text import cut_windows, load_text
from nash_swarm.errors import BudgetError, DataError, UsageError
from nash_swarm.models.source import load_source
from nash_swarm.suite.results import Results
from nash_swarm.suite.running import run
from nash_swarm.suite.settings import Settings

ASKED: dict[str, Any] = {
    "solvers": ("lagrangian", "nash", "uniform"), "bits": (5.0, 6.0), "windows": 2, "eval_windows": 2,
}  # fmt: skip


def _settings(bench: Bench, **changes: Any) -> Settings:
    return Settings((str(bench.model),), text=str(bench.text), **ASKED | changes)


def _files(report: Path) -> dict[str, tuple[int, int]]:
    """Every finished piece of work and when it was written, where."""
    kinds = ("games", "cells", "allocations", "packings")
    return {
        f"{kind}/{path.name}": (path.stat().st_ino, path.stat().st_mtime_ns)
        for kind in kinds
        for path in (report / kind).iterdir()
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suite") / "report"


@pytest.fixture(scope="module")
def results(bench: Bench, report: Path) -> Results:
    return run(_settings(bench), report, quiet=True)


def test_every_cell_is_a_row_in_order(results: Results) -> None:
    assert [(row.bits, row.method) for row in results.rows] == [
        (bits, solver) for bits in ASKED["bits"] for solver in ASKED["solvers"]
    ]
    assert not results.failures and results.facts["cells"] == 6


def test_rows_keep_their_budgets_and_certificates(results: Results) -> None:
    for row in results.rows:
        assert row.bytes * 8 <= row.bits * row.parameters and row.bits_per_parameter == row.bytes * 8 / row.parameters
        assert row.delta_loss == row.loss - row.reference_loss
        assert row.kl is not None and row.kl > 0 and row.top1 is not None
        assert row.gap is not None and row.gap >= 0 and row.fill is not None and 0.95 < row.fill <= 1
        assert row.note == "" and row.model == "model" and "torch" in row.versions
    tight = [row for row in results.rows if row.bits == 5]
    nash, uniform = (next(row for row in tight if row.method == name) for name in ("nash", "uniform"))
    assert nash.predicted_damage is not None and uniform.predicted_damage is not None
    assert nash.predicted_damage < uniform.predicted_damage


def test_figures_are_those_of_the_stages_one_by_one(results: Results, bench: Bench) -> None:
    source, text = load_source(str(bench.model)), load_text(str(bench.text))
    game = ns.measure(source.model, source.tokenizer, text=text, windows=2, granularity="block", quiet=True)
    packed = ns.pack(source.model, ns.solve(game, bits=5.0, solver="uniform"), quiet=True)
    row = next(row for row in results.rows if row.method == "uniform" and row.bits == 5)
    windows = cut_windows(text, source.tokenizer, part="held-out")
    if len(windows) > 2:
        import numpy as np

        from nash_swarm.calibration.text import choose_windows

        windows = choose_windows(windows, 2, np.random.default_rng(0))
    found = ns.evaluate({"packed": packed, "original": source.model}, windows, reference=source.model, quiet=True)
    assert (row.loss, row.kl, row.top1) == (found["packed"].loss, found["packed"].kl, found["packed"].top1)
    assert row.reference_loss == found["original"].loss and row.tokens == found["packed"].tokens


def test_equal_allocations_are_packed_once(results: Results, report: Path) -> None:
    allocations = {results.details[row.key]["allocation"] for row in results.rows}
    assert len(list((report / "packings").iterdir())) == len(allocations) == results.facts["packings"]
    for row in results.rows:
        twins = [
            r for r in results.rows if results.details[r.key]["allocation"] == results.details[row.key]["allocation"]
        ]
        assert row.shares == ("" if row is twins[0] else twins[0].method)
        assert {(r.loss, r.kl) for r in twins} == {(row.loss, row.kl)}
    assert {tuple(m["layers"]) for m in results.maps.values()} == {("outside", "0", "1")}


def test_a_second_run_repeats_nothing_and_a_larger_one_only_what_is_new(
    results: Results, bench: Bench, report: Path
) -> None:
    before = _files(report)
    again = run(_settings(bench), report, quiet=True)
    assert _files(report) == before and again.rows == results.rows
    assert again.facts["cells_found_finished"] == 6
    more = run(_settings(bench, solvers=("greedy", "nash")), report, quiet=True)
    assert before.items() <= _files(report).items()
    assert more.facts["cells_found_finished"] == 2 and more.facts["cells"] == 4
    assert len(list((report / "games").iterdir())) == 1


def test_damaged_work_is_done_again(results: Results, bench: Bench, tmp_path: Path) -> None:
    settings = _settings(bench, solvers=("uniform",), bits=(5.0,))
    first = run(settings, tmp_path, quiet=True)
    for kind in ("games", "packings", "cells"):
        for file in (tmp_path / kind).iterdir():
            file.write_bytes(file.read_bytes()[:20])
    again = run(settings, tmp_path, quiet=True)
    assert replace(again.rows[0], solve_seconds=0.0, pack_seconds=0.0, evaluate_seconds=0.0) == replace(
        first.rows[0], solve_seconds=0.0, pack_seconds=0.0, evaluate_seconds=0.0
    )


def test_jobs_find_what_one_finds(results: Results, bench: Bench, tmp_path: Path) -> None:
    found = run(_settings(bench), tmp_path, jobs=2, backend="threading", quiet=True)
    for one, two in zip(results.rows, found.rows, strict=True):
        assert (one.method, one.predicted_damage) == (two.method, two.predicted_damage)
        assert abs(one.bytes - two.bytes) <= REPORT_BYTES  # the report in a model's folder holds its figures
        assert two.loss == pytest.approx(one.loss, abs=1e-3)  # another number of threads may add up differently


@pytest.mark.slow
def test_processes_find_what_one_finds(results: Results, bench: Bench, tmp_path: Path) -> None:
    found = run(_settings(bench), tmp_path, jobs=2, backend="loky", quiet=True)
    for one, two in zip(results.rows, found.rows, strict=True):
        assert one.method == two.method and abs(one.bytes - two.bytes) <= REPORT_BYTES


def test_a_solver_that_cannot_is_no_reason_to_stop(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    from nash_swarm.solvers.dp import Dp

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("too many agents for me")

    monkeypatch.setattr(Dp, "play", refuse)
    settings = _settings(bench, solvers=("dp", "uniform"), bits=(5.0,))
    found = run(settings, tmp_path, quiet=True)
    assert [row.method for row in found.rows] == ["uniform"]
    assert found.failures == ({"model": "model", "method": "dp", "bits": 5.0, "error": "too many agents for me"},)


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({"solvers": ("nobody",)}, UsageError, "no solver named"),
        ({"solvers": ()}, UsageError, "solvers"),
        ({"bits": (3.0, 3.0)}, UsageError, "each once"),
        ({"bits": (1.0, 5.0)}, BudgetError, "smallest feasible"),
        ({"activations": "int3"}, UsageError, "activations"),
        ({"text": "/nowhere.txt"}, DataError, "no text"),
    ],
)
def test_what_cannot_be_is_refused_before_measuring(
    bench: Bench, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], why: str
) -> None:
    settings = replace(_settings(bench), **changes)
    with pytest.raises(kind, match=why):
        run(settings, tmp_path / "report", quiet=True)
    assert not (tmp_path / "report" / "games").exists() or not list((tmp_path / "report" / "games").iterdir())


def test_an_unknown_backend_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--backend carrier-pigeon"):
        run(_settings(bench), tmp_path, backend="carrier-pigeon", jobs=2)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(bench: Bench, tmp_path: Path) -> None:
    report = tmp_path / "report"
    command = [
        sys.executable, "-m", "nash_swarm", "bench", bench.model, "--text", bench.text, "--windows", "2",
        "--eval-windows", "2", "--bits", "5,6", "--solvers", "lagrangian,uniform,quantile", "-o", report,
        "-q", "--json",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kills, seen = 0, {}
    for enough in (1, 3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
        while process.poll() is None:
            with contextlib.suppress(OSError):
                if len(list((report / "packings").glob("*.json"))) >= enough:
                    os.killpg(process.pid, signal.SIGKILL)
                    kills += 1
                    break
            time.sleep(0.02)
        process.wait()
        assert seen.items() <= _files(report).items()
        seen = {name: facts for name, facts in _files(report).items() if not Path(name).name.startswith(".")}
    assert kills == 2 and not (report / "results.csv").exists()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    values = json.loads(done.stdout)
    assert seen.items() <= _files(report).items(), "finished work was done again"
    assert not [name for name in _files(report) if Path(name).name.startswith(".")], "half-written work is left"
    assert values["cells_found_finished"] == values["cells"] == values["rows"] == 6
    assert values["packings_found_finished"] >= 3 and (report / "report.html").is_file()
