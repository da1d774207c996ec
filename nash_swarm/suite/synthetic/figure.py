"""Time and certified gap against the number of agents, a line for every solver and a column for every kind of game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nash_swarm.files.atomic import new_file
from nash_swarm.suite.synthetic.cells import Row

_SMALLEST_GAP = 1e-12
"""Gaps below it are drawn at it: they are rounding."""
_MARKERS = "osD^v<>pPX*h"
_PANELS = (
    ("seconds", "seconds of play"),
    ("gap", "gap to the lower bound"),
    ("added by the solver MB", "memory added by the solver, MB"),
)
_FLOORS = {"gap": _SMALLEST_GAP, "added by the solver MB": 0.1}


def draw(rows: Sequence[Row], files: Sequence[Path], *, overwrite: bool = False) -> None:
    """Write the figure to `files`, each in the format of its suffix.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(row["game"] for row in rows))
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    figure = Figure(figsize=(3.2 * len(families) + 0.8, 8.6), layout="constrained")
    panels = figure.subplots(len(_PANELS), len(families), sharex=True, sharey="row", squeeze=False)
    for line, (name, label) in zip(panels, _PANELS, strict=True):
        for axes, family in zip(line, families, strict=True):
            for place, solver in enumerate(solvers):
                _line(axes, [row for row in rows if (row["game"], row["solver"]) == (family, solver)], name, place)
            axes.set(xscale="log", yscale="log")
            axes.grid(alpha=0.3)
        line[0].set_ylabel(label)
    for axes, family in zip(panels[0], families, strict=True):
        axes.set_title(family)
    for axes in panels[-1]:
        axes.set_xlabel("agents")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(5, len(solvers)), frameon=False)
    for file in files:
        kind = file.suffix[1:]
        # letters as text, not as outlines: thousands of those are most of a file
        style = {"svg.fonttype": "none", "svg.hashsalt": "nash-swarm"}
        with rc_context(style), new_file(file, overwrite=overwrite) as temporary:
            figure.savefig(temporary, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)


def _line(axes: Any, rows: Sequence[Row], name: str, place: int) -> None:
    points = [(row["agents"], max(row[name], _FLOORS.get(name, 0))) for row in rows if row[name] is not None]
    solver = rows[0]["solver"]
    axes.plot(
        [agents for agents, _ in points], [value for _, value in points], label=solver, color=f"C{place % 10}",
        marker=_MARKERS[place % len(_MARKERS)], markersize=4, linewidth=1.2,
        linestyle="-" if place < 10 else "--",
    )  # fmt: skip
