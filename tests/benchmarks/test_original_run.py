"""`benchmarks/original/run.py`: the document's rows, the same weights when everything counts, and ours beside them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.bench import Bench
from support.benchmarks import run, script

from nash_swarm.models.source import load_source
from nash_swarm.suite.record import load_record
from nash_swarm.suite.rows import PROTOCOL, Row

original = script("original/run")

from methods import METHODS  # noqa: E402

ORIGINAL, COUNTED = original.ORIGINAL, original.COUNTED


def _run(bench: Bench, out: Path, *words: object) -> None:
    asked = ("--solvers", "uniform", "--bits", 4, "--windows", 2, "--eval-windows", 2, "--length", 128)
    run("original/run", bench.model, "--text", bench.text, "-o", out, "-q", *asked, *words)


def _rows(report: Path) -> list[Row]:
    return [Row(**values) for values in load_record(report / "results.json")["rows"]]


@pytest.fixture(scope="module")
def report(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "report"
    _run(bench, out)
    return out


@pytest.fixture(scope="module")
def rows(report: Path) -> list[Row]:
    return _rows(report)


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
    rounds = original.round_linears
    monkeypatch.setattr(original, "round_linears", lambda m, method, g: ran.append(method.name) or rounds(m, method, g))
    lost = next(file for file in (out / "cells").iterdir() if METHODS[0].name in file.read_text(encoding="utf-8"))
    lost.write_text("{}", encoding="utf-8")
    _run(bench, out)
    assert ran == [METHODS[0].name] and _rows(out) == rows
    _run(bench, out, "--seed", 1)
    assert len(ran) == 1 + len(METHODS)
