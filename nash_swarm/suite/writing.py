"""Everything that a report consists of, from its results."""

from __future__ import annotations

import os
from pathlib import Path

from nash_swarm.errors import OutputError
from nash_swarm.suite.folder import FILES
from nash_swarm.suite.output import can_draw, write_texts
from nash_swarm.suite.page import report_page
from nash_swarm.suite.results import Results, write_results
from nash_swarm.suite.tables import latex, markdown

FIGURES = "figures"


def write_report(results: Results, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write results.csv, results.json, report.md, table.tex, report.html and, with matplotlib, static figures.

    Args:
        results: what was found.
        folder: an existing folder.
        overwrite: replace files of these names, an earlier report's; see `check_report_folder`.

    Returns the files.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.

    Warns:
        LeftOutWarning: matplotlib is not installed.
    """
    target = Path(folder)
    if not overwrite and (there := [name for name in FILES if os.path.lexists(target / name)]):
        raise OutputError(f"{target / there[0]} exists; choose another folder or allow overwriting")
    written = write_results(results, target, overwrite=overwrite)
    drawn: list[Path] = []
    if can_draw():
        from nash_swarm.suite.figures import draw

        (target / FIGURES).mkdir(exist_ok=True)
        drawn = draw(results, target / FIGURES, overwrite=overwrite)
    shown = [str(path.relative_to(target)) for path in drawn if path.suffix == ".svg"]
    texts = {
        "report.md": markdown(results, shown),
        "table.tex": latex(results),
        "report.html": report_page(results),
    }
    return [*written, *write_texts(texts, target, overwrite=overwrite), *drawn]
