"""Everything that a report consists of, from its results."""

from __future__ import annotations

import warnings
from pathlib import Path

from nash_swarm import extras
from nash_swarm.errors import LeftOutWarning
from nash_swarm.files.atomic import new_file
from nash_swarm.suite.page import report_page
from nash_swarm.suite.results import Results, write_results
from nash_swarm.suite.tables import latex, markdown

FIGURES = "figures"
MISSING = f"static figures are left out: they need matplotlib; {extras.how_to_install('report')}"


def write_report(results: Results, folder: str | Path) -> list[Path]:
    """Write results.csv, results.json, report.md, table.tex, report.html and, with matplotlib, static figures.

    Args:
        results: what was found.
        folder: an existing folder; files of earlier reports in it are replaced.

    Returns the files.

    Raises:
        DataError: a file cannot be written.

    Warns:
        LeftOutWarning: matplotlib is not installed.
    """
    target = Path(folder)
    written = write_results(results, target)
    drawn: list[Path] = []
    if can_draw():
        from nash_swarm.suite.figures import draw

        (target / FIGURES).mkdir(exist_ok=True)
        drawn = draw(results, target / FIGURES)
    else:
        warnings.warn(MISSING, LeftOutWarning, stacklevel=2)
    shown = [str(path.relative_to(target)) for path in drawn if path.suffix == ".svg"]
    texts = {
        "report.md": markdown(results, shown),
        "table.tex": latex(results),
        "report.html": report_page(results),
    }
    for name, text in texts.items():
        with new_file(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(target / name)
    return written + drawn


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return not extras.missing(("matplotlib",))
