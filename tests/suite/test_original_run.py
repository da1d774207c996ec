"""`bench --protocol original`: the document's rows, the same weights when everything counts, and ours beside them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from typer.testing import CliRunner

from nash_swarm.cli.main import app
from nash_swarm.errors import UsageError
from nash_swarm.models.source import load_source
from nash_swarm.suite.original import running
from nash_swarm.suite.original.method import METHODS
from nash_swarm.suite.original.running import COUNTED, ORIGINAL
from nash_swarm.suite.results import load_csv
from nash_swarm.suite.rows import PROTOCOL, Row


def _bench(bench: Bench, out: Path, *words: str) -> Any:
    words = (*words, "--text", str(bench.text), "-o", str(out), "-q", "--solvers", "uniform", "--bits", "4")
    words += ("--windows", "2", "--eval-windows", "2", "--length", "128")
    return CliRunner().invoke(app, ["bench", str(bench.model), "--protocol", "original", *words])


@pytest.fixture(scope="module")
def report(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "report"
    done = _bench(bench, out)
    assert done.exit_code == 0, done.exception
    return out


@pytest.fixture(scope="module")
def rows(report: Path) -> list[Row]:
    return load_csv(report / "results.csv")


def test_every_method_has_two_rows_and_ours_follow(rows: list[Row]) -> None:
    assert [row.protocol for row in rows] == [ORIGINAL, COUNTED] * len(METHODS) + [PROTOCOL]
    assert [row.method for row in rows[:6:2]] == [row.method for row in rows[1:6:2]] == [m.name for m in METHODS]


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
    assert rows[-1].tokens == rows[1].tokens == 2 * 127 and rows[0].tokens % 63 == 0


def test_the_report_keeps_the_protocols_apart(report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (model, .*)$", text, re.MULTILINE)
    assert heads == [f"model, {name}" for name in (ORIGINAL, COUNTED, PROTOCOL)]
    assert text.count("unilateral regret") == 1 and "| `uniform 4 bits` | 4 |" in text
    assert "padding to 64" in text.split("\n## ")[1] and "padding to 64" not in text.split("\n## ")[2]
    assert (report / "table.tex").read_text(encoding="utf-8").count(r"\begin{table}") == 3
    assert (report / "report.html").read_text(encoding="utf-8").count('class="model"') == 3
    assert json.loads((report / "results.json").read_text(encoding="utf-8"))["rows"][0]["protocol"] == ORIGINAL


def test_finished_methods_are_not_run_again(
    report: Path, rows: list[Row], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    shutil.copytree(report, out)
    ran: list[str] = []
    rounds = running.round_linears
    monkeypatch.setattr(running, "round_linears", lambda m, method, g: ran.append(method.name) or rounds(m, method, g))
    lost = next(file for file in (out / "cells").iterdir() if METHODS[0].name in file.read_text(encoding="utf-8"))
    lost.write_text("{}", encoding="utf-8")
    assert _bench(bench, out).exit_code == 0
    assert ran == [METHODS[0].name] and load_csv(out / "results.csv") == rows
    assert _bench(bench, out, "--seed", "1").exit_code == 0
    assert len(ran) == 1 + len(METHODS)


def test_a_page_shows_only_what_a_protocol_measures(report: Path, open_page: Any) -> None:
    page = open_page(report / "report.html")
    published, counted, ours = page.locator("section.model").all()
    assert "Size against KL" not in published.inner_text() and "Size against perplexity" in published.inner_text()
    assert "Size against KL" in counted.inner_text() and "Solver time" not in counted.inner_text()
    assert "Solver time" in ours.inner_text() and "Nothing to show" not in page.inner_text("main")


def test_unknown_protocols_are_refused(bench: Bench, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(bench.model), "--protocol", "other", "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, UsageError) and "nash-swarm, original" in str(done.exception)
    assert not list(tmp_path.iterdir())
