"""What a report looks like: Markdown, LaTeX, pictures and the page, whatever the names in it are."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.suite import a_row, some_results

from nash_swarm.errors import DataError
from nash_swarm.suite.page import report_page
from nash_swarm.suite.peers import beside, read_peers
from nash_swarm.suite.results import Results, write_results
from nash_swarm.suite.tables import latex, markdown
from nash_swarm.suite.writing import write_report

EVIL = "</script><script>alert(1)</script><!-- & \"' |"


def test_a_report_has_all_its_files(tmp_path: Path) -> None:
    written = write_report(some_results(), tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in written}
    assert {"results.csv", "results.json", "report.md", "table.tex", "report.html"} <= names
    pictures = ("allocation", "pareto", "predicted", "price-and-regret", "widths")
    assert {f"figures/tiny-{name}{suffix}" for name in pictures for suffix in (".png", ".svg")} <= names
    assert all(path.stat().st_size for path in written)
    assert all(path.stat().st_size < 300_000 for path in written if path.parent.name == "figures")
    assert (tmp_path / "figures" / "tiny-pareto.png").read_bytes()[:4] == b"\x89PNG"
    before = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in write_report(some_results(), tmp_path, overwrite=True)} == before


def test_without_matplotlib_the_rest_is_written(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.path.insert(0, sys.argv[2])\n"
        "from support.suite import some_results; from nash_swarm.suite import writing\n"
        "writing.can_draw = lambda: False\n"
        "print(len(writing.write_report(some_results(), sys.argv[1])))"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, tmp_path, tests], capture_output=True, text=True, check=True)
    assert done.stdout == "5\n" and not (tmp_path / "figures").exists()


def test_markdown_has_every_row_and_says_what_the_figures_are_of() -> None:
    results = some_results()
    text = markdown(results, ["figures/tiny-pareto.svg"])
    for row in results.rows:
        assert f"{row.bytes:,}" in text and f"{row.loss:.4f}" in text
    assert "nash-swarm bench tiny" in text and "511 tokens" in text and "seed 0" in text and "torch" in text
    assert "](figures/tiny-pareto.svg)" in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 2  # the table of losses and the one of certificates


def test_latex_is_balanced_and_escaped() -> None:
    text = latex(
        Results((a_row(method="a_b & 50%", model="x{y}"), a_row(method="nash", model="x{y}", bits=4)), "bench $x")
    )
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert r"a\_b \& 50\% & 0.00 & 90.6 & 3.6000 & +2.86 & 36.60 \\" in text
    body = text.replace(r"\{", "").replace(r"\}", "")
    assert body.count("{") == body.count("}")
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_and_escapes_what_is_in_it() -> None:
    results = some_results()
    rows = tuple(replace(row, model=EVIL, method=EVIL, note=EVIL) for row in results.rows)
    evil = replace(
        results, rows=rows, command=EVIL, failures=({"model": EVIL, "method": EVIL, "bits": 2, "error": EVIL},)
    )
    text = report_page(evil)
    page = _Page(text)
    assert not page.open
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 4 and "alert(1)</script>" not in text
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & attributes.keys()]
    assert not re.findall(r"(?<!w3\.org/2000/svg)https?://(?!www\.w3\.org)", text)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None and json.loads(data[1])["models"][0]["name"] == EVIL


def test_what_json_cannot_say_is_left_out(tmp_path: Path) -> None:
    results = some_results()
    rows = (replace(results.rows[0], gap=math.inf), *results.rows[1:])
    details = {**results.details, "cell1": {**results.details["cell1"], "trace": [{"iteration": 0, "price": math.nan}]}}
    endless = replace(results, rows=rows, details=details)
    write_results(endless, tmp_path)
    refuse = {"parse_constant": lambda name: pytest.fail(name)}
    assert json.loads((tmp_path / "results.json").read_text(), **refuse)["rows"][0]["gap"] is None
    data = re.search(r'id="data">(.*?)</script>', report_page(endless), re.DOTALL)
    assert data is not None
    json.loads(data[1], **refuse)


def test_peers_come_from_any_table_that_says_enough(tmp_path: Path) -> None:
    path = tmp_path / "peers.csv"
    path.write_text('method,settings,bits_incl_overhead,loss,ppl,kl\nfp,,32,3.5,33,0\n"a, b",w3,3,4,,0.5\nc,,4,,40,\n')
    peers = read_peers(path)
    assert [(peer["method"], peer["bits"], peer["kl"]) for peer in peers] == [("a, b", 3, 0.5), ("c", 4, None)]
    assert peers[0]["perplexity"] == pytest.approx(54.598, abs=1e-3) and peers[1]["perplexity"] == 40
    assert [peer["bytes"] for peer in beside(tuple(peers), [a_row(parameters=8000)])] == [3000, 4000]
    assert beside(({**peers[0], "model": "other"},), [a_row()]) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bits,kl\n3,1\n", "no method"), ("method,kl\na,1\n", "no size"), ("method,bits\na,3\n", "neither kl"),
        ("method,bits,kl\na,x,1\n", "no bits"), ("method,bits,kl\na,3,inf\n", "inf"),
        ("method,bits,kl\na,3\n", "cells"),
    ],
)  # fmt: skip
def test_a_table_of_peers_that_says_too_little_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "peers.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=why):
        read_peers(path)


def test_our_results_are_peers_too(tmp_path: Path) -> None:
    write_results(some_results(), tmp_path)
    assert len(read_peers(tmp_path / "results.csv")) == len(some_results().rows)
