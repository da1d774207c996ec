"""What `bench-solvers` leaves behind: the table as CSV and JSON, and the figures where matplotlib is installed."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nash_swarm.files.atomic import new_file
from nash_swarm.suite.rows import library_versions
from nash_swarm.suite.synthetic.cells import Row
from nash_swarm.suite.synthetic.contest import COLUMNS, DONE

CSV, JSON, REPORT, FIGURES = "results.csv", "results.json", "report.md", ("solvers.png", "solvers.svg")
SHOWN = {
    "agents": ".0e", "solver": "", "damage": ".6g", "gap": ".2e", "unilateral regret": ".1e", "seconds": ".3g",
    "ns per agent": ".0f", "peak memory MB": ".0f", "added by the solver MB": ".1f",
}  # fmt: skip
"""Columns of the tables that people read, and how their numbers are written."""


def results_of(rows: Sequence[Row], command: str, **settings: Any) -> dict[str, Any]:
    """Rows with what it takes to make and to judge them, JSON values only."""
    machine = {"processors": os.cpu_count(), "architecture": platform.machine(), "system": platform.system()}
    return {
        "command": command, "versions": dict(library_versions()), "machine": machine, **settings, "rows": list(rows)
    }  # fmt: skip


def write_files(results: dict[str, Any], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write `results` into a folder that exists.

    Args:
        results: see `results_of`.
        folder: where to.
        overwrite: replace files of these names, those of an earlier run.

    Returns the files, without figures if there is no matplotlib.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    table, values, report = folder / CSV, folder / JSON, folder / REPORT
    with new_file(table, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(results["rows"])
    for file, text in ((values, json.dumps(results, indent=1) + "\n"), (report, markdown(results))):
        with new_file(file, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if find_spec("matplotlib") is None:
        return [table, values, report]
    from nash_swarm.suite.synthetic.figure import draw

    figures = [folder / name for name in FIGURES]
    draw(results["rows"], figures, overwrite=overwrite)
    return [table, values, report, *figures]


def markdown(results: dict[str, Any]) -> str:
    """The results as a page with a table for each kind of game."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    lines = ["# Solvers on synthetic games", "", f"`{results['command']}`", "", f"{versions}; {machine}"]
    for family in dict.fromkeys(row["game"] for row in results["rows"]):
        lines += [
            "",
            f"## {family}",
            "",
            f"| {' | '.join(SHOWN)} | |",
            "|---" * 2 + "|---:" * (len(SHOWN) - 2) + "|---|",
        ]
        lines += [f"| {' | '.join(line)} |" for line in cells(row for row in results["rows"] if row["game"] == family)]
    return "\n".join([*lines, ""])


def cells(rows: Iterable[Row]) -> list[list[str]]:
    """The columns `SHOWN` of each row as text, and last the reason if it has no figures."""
    return [
        [
            *("" if row[name] is None else format(row[name], spec) for name, spec in SHOWN.items()),
            "" if row["status"] == DONE else row["status"],
        ]
        for row in rows
    ]
