"""Time and certified gap against the number of agents, a line for every solver and a column for every kind of game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nash_swarm.suite.figures import mark, save_picture
from nash_swarm.suite.synthetic.cells import Row

_SMALLEST_GAP = 1e-12
"""Gaps below it are drawn at it: they are rounding."""
_PANELS = (
    ("seconds", "seconds of play"),
    ("gap", "gap to the lower bound"),
    ("added by the solver MB", "memory added by the solver, MB"),
)
_FLOORS = {"gap": _SMALLEST_GAP, "added by the solver MB": 0.1}


def draw(rows: Sequence[Row], stem: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the figure as PNG and SVG; returns the files.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    families = list(dict.fromkeys(row["game"] for row in rows))
    solvers = list(dict.fromkeys(row["solver"] for row in rows))

    def picture(figure: Figure) -> None:
        panels = figure.subplots(len(_PANELS), len(families), sharex=True, sharey="row", squeeze=False)
        for line, (name, label) in zip(panels, _PANELS, strict=True):
            for axes, family in zip(line, families, strict=True):
                for place, solver in enumerate(solvers):
                    of = [row for row in rows if (row["game"], row["solver"]) == (family, solver)]
                    _line(axes, of, name, place)
                axes.set(xscale="log", yscale="log")
            line[0].set_ylabel(label)
        for axes, family in zip(panels[0], families, strict=True):
            axes.set_title(family)
        for axes in panels[-1]:
            axes.set_xlabel("agents")
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=min(5, len(solvers)))

    return save_picture(picture, (3.2 * len(families) + 0.8, 8.6), stem, overwrite=overwrite)


def _line(axes: Any, rows: Sequence[Row], name: str, place: int) -> None:
    points = [(row["agents"], max(row[name], _FLOORS.get(name, 0))) for row in rows if row[name] is not None]
    axes.plot(
        [agents for agents, _ in points], [value for _, value in points], marker=mark(place), markersize=4,
        linewidth=1.2, label=rows[0]["solver"], color=f"C{place % 10}", linestyle="-" if place < 10 else "--",
    )  # fmt: skip
