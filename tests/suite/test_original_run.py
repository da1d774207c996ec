"""`bench --protocol original`: the document's rows, the same weights when everything counts, and ours beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bench import Bench
from typer.testing import CliRunner

from nash_swarm.cli.main import app
from nash_swarm.errors import UsageError
from nash_swarm.models.source import load_source
from nash_swarm.suite.original.method import METHODS
from nash_swarm.suite.original.running import COUNTED, ORIGINAL
from nash_swarm.suite.results import load_csv
from nash_swarm.suite.rows import Row


@pytest.fixture(scope="module")
def report(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "report"
    words = ["bench", str(bench.model), "--protocol", "original", "--text", str(bench.text), "-o", str(out), "-q"]
    words += ["--solvers", "uniform", "--bits", "4", "--windows", "2", "--eval-windows", "2"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    return out


@pytest.fixture(scope="module")
def rows(report: Path) -> list[Row]:
    return load_csv(report / "results.csv")


def test_every_method_has_two_rows_and_ours_follow(rows: list[Row]) -> None:
    assert [row.protocol for row in rows] == [ORIGINAL, COUNTED] * len(METHODS) + ["nash-swarm"]
    assert [row.method.rpartition(",")[0] for row in rows[:6:2]] == [method.name for method in METHODS]


def test_published_sizes_are_of_the_codes_alone(rows: list[Row], bench: Bench) -> None:
    model = load_source(str(bench.model)).model
    total = sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
    for published, counted in zip(rows[:6:2], rows[1:6:2], strict=True):
        bits = 4 if "uniform" in published.method else 3
        assert published.bits_per_parameter == pytest.approx(bits, rel=1e-2)
        assert published.compression == pytest.approx(1 - bits / 32, rel=1e-3)
        assert published.parameters < total == counted.parameters
        # the map of widths, and the norms in 16 bits
        others = total - published.parameters
        assert counted.bytes >= published.bytes + 2 * others + (0 if bits == 4 else 1.15 * published.parameters / 8)
        assert published.reference_loss != counted.reference_loss and published.kl is None and counted.kl is not None


def test_ours_are_measured_on_the_same_windows(rows: list[Row]) -> None:
    assert rows[-1].reference_loss == pytest.approx(rows[1].reference_loss, rel=1e-6)
    assert rows[-1].tokens == rows[1].tokens and rows[0].tokens % 63 == 0


def test_the_report_keeps_the_protocols_apart(report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    assert text.count("\n## ") >= 3 and "padding to 64" in text
    assert json.loads((report / "results.json").read_text(encoding="utf-8"))["rows"][0]["protocol"] == ORIGINAL


def test_unknown_protocols_are_refused(bench: Bench, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(bench.model), "--protocol", "other", "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, UsageError) and "nash-swarm, original" in str(done.exception)
