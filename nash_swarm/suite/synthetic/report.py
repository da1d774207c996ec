"""What `bench-solvers` leaves behind: the table as CSV, JSON and Markdown, and the figure where matplotlib is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nash_swarm.suite.markdown import markdown_table, number
from nash_swarm.suite.output import can_draw, write_texts
from nash_swarm.suite.record import origin, save_record
from nash_swarm.suite.results import CSV, JSON, save_csv
from nash_swarm.suite.synthetic.cells import Row
from nash_swarm.suite.synthetic.contest import COLUMNS, DONE

REPORT, FIGURE = "report.md", "solvers"
FILES = (CSV, JSON, REPORT, f"{FIGURE}.png", f"{FIGURE}.svg")
SHOWN = {
    "agents": ".0e", "solver": "", "damage": ".6g", "gap": ".2e", "unilateral regret": ".1e", "seconds": ".3g",
    "ns per agent": ".0f", "peak memory MB": ".0f", "added by the solver MB": ".1f",
}  # fmt: skip
"""Columns of the tables that people read, and how their numbers are written."""


def results_of(rows: Sequence[Row], command: str, **settings: Any) -> dict[str, Any]:
    """Rows as a record."""
    return {**origin(command), **settings, "rows": list(rows)}


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

    Warns:
        LeftOutWarning: there is no matplotlib.
    """
    save_csv(results["rows"], COLUMNS, folder / CSV, overwrite=overwrite)
    save_record(folder / JSON, results, overwrite=overwrite)
    written = [folder / CSV, folder / JSON, *write_texts({REPORT: markdown(results)}, folder, overwrite=overwrite)]
    if not can_draw():
        return written
    from nash_swarm.suite.synthetic.figure import draw

    return [*written, *draw(results["rows"], folder / FIGURE, overwrite=overwrite)]


def markdown(results: dict[str, Any]) -> str:
    """The results as a page with a table for each kind of game."""
    circumstances = ", ".join(
        f"{name} {value}" for part in ("versions", "machine") for name, value in results[part].items()
    )
    lines = ["# Solvers on synthetic games", "", f"`{results['command']}`", "", circumstances]
    for family in dict.fromkeys(row["game"] for row in results["rows"]):
        body = cells(row for row in results["rows"] if row["game"] == family)
        lines += ["", f"## {family}", "", *markdown_table([*SHOWN, ""], body, texts=2)]
    return "\n".join([*lines, ""])


def cells(rows: Iterable[Row]) -> list[list[str]]:
    """The columns `SHOWN` of each row as text, and last the reason if it has no figures."""
    return [
        [*(number(row[name], how) for name, how in SHOWN.items()), "" if row["status"] == DONE else row["status"]]
        for row in rows
    ]
