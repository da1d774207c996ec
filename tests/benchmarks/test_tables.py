"""`benchmarks/tables.py`: pages say what the records say, and how a record becomes a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import script

tables = script("tables")

ROWS = [
    {"solver": "a", "agents": 10, "gap": 1e-7, "error": 0.25, "share": 0.5, "note": "x|y"},
    {"solver": "b", "agents": 10, "gap": 0.0, "error": 0.5, "share": 0.5, "note": "x|y"},
    {"solver": "b", "agents": 20, "gap": None, "error": 12345.0, "share": 1.0, "note": "z"},
]


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "some.json").write_text(json.dumps({"command": "x", "part": {"rows": ROWS}}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables._record.cache_clear()
    yield tmp_path
    tables._record.cache_clear()


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_have_the_figures_of_the_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text, f"run: python benchmarks/tables.py --write docs/{page.name}"
    assert text.count("<!-- table:") == len(re.findall("<!-- end -->", text)) == len(tables._TABLE.findall(text))


def test_every_record_names_its_command_versions_and_machine() -> None:
    for path in (Path(tables.ROOT) / "benchmarks" / "results").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["command"].startswith(("python benchmarks/", "nash-swarm ")), path
        assert {"machine", "versions"} <= record.keys(), path
        # where the commit is not known, the page and the commit that the figures came with are named
        assert record.get("commit") or "commit" in record.get("taken over", ""), path


def test_numbers_are_written_as_asked(records: Path) -> None:
    lines = tables.table(
        "some.json part.rows", "solver:code | gap:.0e | error = the error:,.1f | share:.0%"
    ).splitlines()
    assert lines == [
        "| solver | gap | the error | share |",
        "|---|---:|---:|---:|",
        "| `a` | 1e-7 | 0.2 | 50 % |",
        "| `b` | 0 | 0.5 | 50 % |",
        "| `b` |  | 12,345.0 | 100 % |",
    ]


def test_rows_are_chosen_sorted_and_merged(records: Path) -> None:
    found = tables.table("some.json part.rows where:agents=10 sort=error merge=solver", "solver | note | share:.1f")
    assert found.splitlines()[2:] == ["| a, b | x\\|y | 0.5 |"]


def test_rows_stand_side_by_side(records: Path) -> None:
    found = tables.table(
        "some.json part.rows by=solver across=agents", "solver | share / error@10 = small:.2f | error@20:.0f"
    )
    assert found.splitlines() == [
        "| solver | small | 20 |", "|---|---:|---:|", "| a | 0.50 / 0.25 |  |", "| b | 0.50 / 0.50 | 12345 |",
    ]  # fmt: skip


def test_a_column_that_no_row_has_is_named(records: Path) -> None:
    with pytest.raises(SystemExit, match="no column 'loss'"):
        tables.table("some.json part.rows", "solver | loss:.2f")


def test_a_page_is_checked_and_written(records: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = records / "page.md"
    first = "before\n<!-- table: some.json part.rows where:agents=20\nsolver | error:.0f\n-->\n"
    page.write_text(f"{first}old\n<!-- end -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["tables.py", str(page)])
    with pytest.raises(SystemExit, match="1"):
        tables.main()
    assert "not what its record says: some.json" in capsys.readouterr().out
    for words in (["--write"], []):
        monkeypatch.setattr("sys.argv", ["tables.py", str(page), *words])
        with pytest.raises(SystemExit, match="0"):
            tables.main()
    assert page.read_text() == f"{first}| solver | error |\n|---|---:|\n| b | 12345 |\n<!-- end -->\nafter\n"
