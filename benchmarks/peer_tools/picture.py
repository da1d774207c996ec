"""KL over bits of every row, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from nash_swarm.suite.figures import mark, save_picture
from peer_tools.table import Row, by_bits

_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def draw(rows: Iterable[Row], stem: Path, title: str) -> list[Path]:
    """Write the picture; a line joins the best of ours. Returns the files."""
    groups: dict[str, list[Row]] = {}
    for row in by_bits(rows):
        groups.setdefault(row.method, []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (not item[1][0].ours, item[0]))

    def picture(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (method, found) in enumerate(ordered):
            points = axes.plot(*_places(found), mark(number), markersize=5, label=method)
            if found[0].ours:
                axes.plot(*_places(best_by_bits(found)), color=points[0].get_color(), linewidth=1.6)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(_TICKS))
        axes.yaxis.set_minor_locator(FixedLocator([]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("bits per quantized weight, every overhead included")
        axes.set_ylabel("KL to the original, nats per token")
        axes.set_title(title, fontsize=9)
        axes.legend(loc="upper right")

    return save_picture(picture, (7.0, 4.6), stem, overwrite=True)


def best_by_bits(rows: Iterable[Row]) -> list[Row]:
    """The rows that no other one beats at no more bits."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.bits_incl_overhead, row.kl)):
        if not found or row.kl < found[-1].kl:
            found.append(row)
    return found


def _places(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [row.bits_incl_overhead for row in rows], [row.kl for row in rows]
