"""The report's pictures as PNG and SVG, drawn by matplotlib."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from nash_swarm.caveats import counted
from nash_swarm.files.atomic import new_file
from nash_swarm.suite.peers import beside
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, labels
from nash_swarm.suite.tables import by_model

_MARKERS = "osD^vPX*<>p"
_STYLE = {
    "svg.hashsalt": "nash-swarm", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
_MOST_RECORDS = 400
_PROHIBITIVE = 1e30
"""Solvers begin at a price that nobody would pay; drawn, it would hide all others."""


def draw(results: Results, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write every picture of a report into `folder`, as PNG and as SVG; returns the files.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    written: list[Path] = []
    for model, rows in by_model(results.rows).items():
        stem = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-") or "model"
        peers = beside(results.peers, rows)
        pictures: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
            "pareto": (partial(_pareto, rows=rows, peers=peers), (9, 3.8)),
            "predicted": (partial(_predicted, rows=rows), (4.5, 3.8)),
            "price-and-regret": (partial(_traces, rows=rows, details=results.details), (9, 3.6)),
        }
        best = min(rows, key=lambda row: (abs(row.bits - 3), row.loss))
        found = results.maps.get(results.details.get(best.key, {}).get("allocation", ""))
        if found is not None:
            title = f"{best.method} at {best.bits:g} bits per parameter"
            size = (max(5.0, 0.8 * len(found["modules"]) + 2), max(3.0, 0.2 * len(found["layers"]) + 1.5))
            pictures["allocation"] = (partial(_heat, found=found, title=title), size)
            pictures["widths"] = (partial(_widths, found=found, title=title), (4.5, 3.0))
        for name, (picture, size) in pictures.items():
            written += save_picture(picture, size, folder / f"{stem}-{name}", overwrite=overwrite)
    return written


def mark(place: int) -> str:
    """There are ten colours and eleven marks, so that no two of a hundred series look the same."""
    return _MARKERS[place % len(_MARKERS)]


def save_picture(
    picture: Callable[[Figure], None], size: tuple[float, float], stem: Path, *, overwrite: bool = False
) -> list[Path]:
    """Write what `picture` draws as PNG and SVG, the same bytes every time; returns the files, none if it drew nothing.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        picture(figure)
        if not figure.axes:
            return []
        files = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
        for file in files:
            kind = file.suffix[1:]
            # neither the day nor the version of the tool belongs into a picture that is compared with an earlier one
            metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
            with new_file(file, overwrite=overwrite) as temporary:
                figure.savefig(temporary, format=kind, dpi=130, metadata=metadata)
        return files


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by label, from the fewest bytes to the most."""
    found: dict[str, list[Row]] = {}
    for row, label in zip(rows, labels(rows), strict=True):
        found.setdefault(label, []).append(row)
    return {label: sorted(of, key=lambda row: row.bytes) for label, of in sorted(found.items())}


def _pareto(figure: Figure, rows: Sequence[Row], peers: Sequence[Mapping[str, Any]]) -> None:
    panels = [("perplexity", "perplexity")]
    if any(row.kl is not None for row in rows):
        panels.insert(0, ("kl", f"KL to the original, nats per token\non {counted(rows[0].tokens, rows[0].eval_text)}"))
    for axes, (name, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, (label, of) in enumerate(_series(rows).items()):
            points = [(row.bytes / 1e6, getattr(row, name)) for row in of if getattr(row, name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=mark(place), markersize=4, lw=1, label=label)
        for method in dict.fromkeys(peer["method"] for peer in peers):
            points = [(p["bytes"] / 1e6, p[name]) for p in peers if p["method"] == method and p[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), "x", color="0.4", markersize=5)
                axes.annotate(str(method)[:24], points[0], fontsize=6, color="0.4", xytext=(3, 3),
                              textcoords="offset points")  # fmt: skip
        if name == "perplexity":
            axes.axhline(rows[0].reference_perplexity, color="0.5", lw=0.8, ls="--")
        _logarithmic(axes.set_yscale, axes.yaxis)
        axes.set(xlabel="MB on disk", ylabel=title)
    figure.axes[0].legend()


def _predicted(figure: Figure, rows: Sequence[Row]) -> None:
    known = [row for row in rows if row.predicted_damage is not None]
    if not known:
        return
    axes = figure.subplots()
    for place, (label, of) in enumerate(_series(known).items()):
        axes.plot(
            [row.predicted_damage or 0.0 for row in of], [row.delta_loss for row in of], mark(place),
            markersize=4, label=label,
        )  # fmt: skip
    ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
    axes.plot(ends, ends, color="0.5", lw=0.8, ls="--")
    axes.set(xlabel="predicted damage", ylabel="measured rise of the loss, nats per token")
    axes.legend()


def _traces(figure: Figure, rows: Sequence[Row], details: Mapping[str, Mapping[str, Any]]) -> None:
    bits = min((row.bits for row in rows), key=lambda value: abs(value - 3))
    panels = (("price", "price, damage per bit"), ("unilateral_regret", "largest gain of one agent"))
    found: list[tuple[str, str, str, list[tuple[float, float]]]] = []
    for label, of in _series([row for row in rows if row.bits == bits]).items():
        for name, title in panels:
            trace = details.get(of[0].key, {}).get("trace", ())[:_MOST_RECORDS]
            points = [
                (record["iteration"], record[name]) for record in trace if 0 <= record.get(name, -1) < _PROHIBITIVE
            ]
            # a logarithmic scale has no zero, but a regret that is zero all along is worth showing
            points = [point for point in points if point[1] > 0] or points
            found += [(name, title, label, points)] if points else []
    if not found:
        return
    for axes, (name, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for place, (of_name, _, label, points) in enumerate(found):
            if of_name == name:
                axes.plot(*zip(*points, strict=True), marker=mark(place), markersize=3, lw=1, label=label)
        axes.set(xlabel="iteration", ylabel=title, title=f"{bits:g} bits per parameter")
        if axes.lines:
            if any(y > 0 for line in axes.lines for y in line.get_ydata()):
                _logarithmic(axes.set_yscale, axes.yaxis)
            axes.legend()


def _heat(figure: Figure, found: Mapping[str, Any], title: str) -> None:
    import numpy as np

    grid = np.full((len(found["layers"]), len(found["modules"])), np.nan)
    for layer, module, bits, *_ in found["spots"]:
        grid[layer, module] = bits
    axes = figure.subplots()
    image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=2, vmax=8)
    axes.set_xticks(range(len(found["modules"])), found["modules"], rotation=45, ha="right")
    axes.set_yticks(range(len(found["layers"])), found["layers"])
    axes.grid(False)
    axes.set(ylabel="layer", title=title)
    figure.colorbar(image, label="mean bits per weight")


def _widths(figure: Figure, found: Mapping[str, Any], title: str) -> None:
    axes = figure.subplots()
    bars = axes.bar(list(found["shares"]), [100 * share for share in found["shares"].values()])
    axes.bar_label(bars, fmt="%.1f")
    axes.set(xlabel="bits", ylabel="% of the weights", title=title)


def _logarithmic(scale: Callable[[str], None], axis: Axis) -> None:
    """A logarithmic scale that is labelled with plain numbers."""
    scale("log")
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(_Plain(minor_thresholds=(2, 0.4)))


class _Plain(LogFormatter):
    """Labels what `LogFormatter` does, as plain numbers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""
