"""The pages in a real browser: nothing on the console, tables sort, pointing and keys show what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.suite import a_row, some_results

from nash_swarm.suite.heatmap import HeatMap, Spot
from nash_swarm.suite.page import heatmap_page, report_page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(some_results()), encoding="utf-8")
    return path


def _column(page: Any, number: int) -> list[str]:
    found: list[str] = page.locator(f"table.sortable tbody tr > :nth-child({number + 1})").all_inner_texts()
    return found


def test_every_picture_is_there(report: Path, open_page: Any) -> None:
    page = open_page(report)
    titles = " | ".join(page.locator("figcaption").all_inner_texts())
    for title in (
        "Size against KL", "Size against perplexity", "Predicted against measured", "Allocation", "Widths",
        "Price over iterations", "Regret over iterations",
    ):  # fmt: skip
        assert title in titles
    first = page.locator("figure").first
    assert first.locator("polyline").count() == 2  # one line a solver
    assert first.locator(".mark[data-tip]").count() == 4 + 1  # the cells, and the peer
    assert first.locator(".legend button").all_inner_texts() == ["nash", "uniform", "other tools"]
    first.locator(".legend button").first.click()
    assert first.locator("polyline").count() == 1
    assert first.locator(".legend button").first.get_attribute("aria-pressed") == "false"


def test_the_table_sorts_numbers_as_numbers(report: Path, open_page: Any) -> None:
    page = open_page(report)
    head = page.locator("table.sortable thead button", has_text="bytes")
    head.click()
    assert _column(page, 2) == ["372", "372", "496", "496", "4,000"]
    assert page.locator("th[aria-sort=ascending]").inner_text() == "bytes"
    head.press("Enter")
    assert _column(page, 2) == ["4,000", "496", "496", "372", "372"]
    page.locator("table.sortable thead button", has_text="KL").click()
    assert _column(page, 8)[-1] == ""  # the original has none: empty cells come last
    page.locator("table.sortable thead button", has_text="method").click()
    assert _column(page, 0) == sorted(_column(page, 0))


def test_pointing_and_keys_tell_of_a_cell(report: Path, open_page: Any) -> None:
    page = open_page(report)
    tip, cell = page.locator("#tip"), page.locator(".map td[data-tip]").nth(1)
    assert tip.is_hidden()
    cell.hover()
    assert tip.is_visible()
    assert tip.inner_text().splitlines() == [
        "layer 0, attn.q", "2.000 bits per weight, scales included", "300 weights", "2 bits: 25.0 %", "8 bits: 75.0 %",
        "damage 0.1",
    ]  # fmt: skip
    cell.focus()
    page.keyboard.press("ArrowDown")
    assert "layer 1, attn.q" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.locator(".mark[data-tip]").first.hover()
    assert "nash at 3 bits" in tip.inner_text()


def test_the_menu_chooses_the_allocation(report: Path, open_page: Any) -> None:
    page = open_page(report)
    page.locator("select").select_option(label="uniform at 4 bits")
    page.locator(".map td[data-tip]").nth(1).hover()
    assert "2.375 bits" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(report: Path, open_page: Any, scheme: str) -> None:
    page = open_page(report, width=360, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    contrasts = page.evaluate(_CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts


def test_a_page_shows_only_what_a_protocol_measures(tmp_path: Path, open_page: Any) -> None:
    path, none = tmp_path / "report.html", {"kl": None, "top1": None, "predicted_damage": None}
    results = some_results()
    rows = (a_row(protocol="sizes", key="none", **none), *results.rows)
    path.write_text(report_page(replace(results, rows=rows)), encoding="utf-8")
    sizes, ours = open_page(path).locator("section.model").all()
    assert "Size against KL" not in sizes.inner_text() and "Size against perplexity" in sizes.inner_text()
    assert "Predicted against" not in sizes.inner_text() and "Predicted against" in ours.inner_text()


def test_a_packed_model_has_a_page_too(tmp_path: Path, open_page: Any) -> None:
    spots = (Spot("embed", "outside", "embed", 6.0, 10, {6: 1.0}), Spot("h.0.x", "0", "x", 3.2, 10, {3: 1.0}))
    path = tmp_path / "model.html"
    path.write_text(heatmap_page("<model> & co", [("bytes", "1 < 2")], HeatMap(spots)), encoding="utf-8")
    page = open_page(path)
    assert page.locator("h1").inner_text() == "<model> & co" and page.locator("dd").inner_text() == "1 < 2"
    page.locator(".map td[data-tip]").nth(1).hover()
    assert page.locator("#tip").inner_text().splitlines() == [
        "layer 0, x", "3.200 bits per weight, scales included", "10 weights", "3 bits: 100.0 %",
    ]  # fmt: skip


_CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)" && c.startsWith("rgb")) return rgb(c);
    }
    return [255, 255, 255];
  };
  const found = {};
  const names = ["body", "header p", "figcaption small", "label", "td[data-tip]", "table.sortable td", "dt", "select"];
  for (const name of names) {
    const e = document.querySelector(name);
    found[name] = ratio(rgb(getComputedStyle(e).color), behind(e));
  }
  const text = document.querySelector("svg text:not(.name)");
  found["svg text"] = ratio(rgb(getComputedStyle(text).fill), behind(text));
  return found;
}"""
