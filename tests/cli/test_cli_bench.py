"""`nash-swarm bench` from end to end on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench


@pytest.fixture
def asked(bench: Bench) -> list[object]:
    return ["bench", bench.model, "--text", bench.text, "--windows", 2, "--eval-windows", 2, "-q"]


def test_bench_writes_a_report(asked: list[object], command: Any, tmp_path: Path) -> None:
    report, peers = tmp_path / "report", tmp_path / "peers.csv"
    peers.write_text("method,bits,kl\nother,5,0.1\n")
    more = ["--solvers", "nash,uniform", "--bits", "5", "-o", report]
    values = command(*asked, *more, "--json", "--peers", peers).values
    assert values["rows"] == values["cells"] == 2 and values["failures"] == 0
    for name in ("results.csv", "results.json", "report.md", "table.tex", "report.html"):
        assert str(report / name) in values["files"] and (report / name).stat().st_size
    assert '"other"' in (report / "report.html").read_text()
    told = command(*[word for word in asked if word != "-q"], *more)
    assert told.code == 0 and "report.html" in told.out.replace("\n", "") and "uniform" in told.out
    assert "pack and evaluate: 100%" in told.err


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--solvers", "nobody"], "no solver named"),
        (["--bits", "three"], "cannot read the budgets"),
        (["--bits", "1"], "smallest feasible"),
        (["--backend", "carrier-pigeon", "--jobs", 2], "carrier-pigeon"),
        (["--jobs", 0], "jobs"),
        (["--granularity", "block,atom"], "granularity"),
    ],
)
def test_bad_usage_leaves_no_report(
    asked: list[object], command: Any, tmp_path: Path, wrong: list[object], why: str
) -> None:
    told = command(*asked, "-o", tmp_path / "report", *wrong)
    assert told.code == 2 and why in told.err and len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_a_table_of_peers_is_read_before_the_work(asked: list[object], command: Any, tmp_path: Path) -> None:
    told = command(*asked, "-o", tmp_path / "report", "--peers", tmp_path / "none.csv")
    assert told.code == 1 and "no table" in told.err and not (tmp_path / "report").exists()
