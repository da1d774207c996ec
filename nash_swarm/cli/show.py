"""How results look on a terminal, and as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nash_swarm.caveats import FEWEST_TOKENS, counted
from nash_swarm.names import OUTSIDE

if TYPE_CHECKING:
    from rich.table import Table

    from nash_swarm.evaluation.measures import Evaluation
    from nash_swarm.game.allocation import Allocation
    from nash_swarm.suite.heatmap import HeatMap, Spot

_SHADES = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""Viridis, from 2 bits to 8."""
_LIGHT = _SHADES[4:]
_BAR = "█"
_BESIDE_BARS = 16
"""Columns before a bar."""


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(values, indent=1))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def print_rich(*parts: Any) -> None:
    """Tables and text on standard output."""
    from rich.console import Console

    # paths and texts that stand in them are not ours: brackets and colons in them mean nothing
    console = Console(markup=False, emoji=False)
    for part in parts:
        console.print(part)


def histogram(shares: Mapping[int, float], width: int = 40) -> str:
    """A bar a bit-width, from shares of the weights; at most `width` wide, and no wider than the terminal."""
    width = max(1, min(width, shutil.get_terminal_size().columns - _BESIDE_BARS))
    bar = _BAR if _can_say(_BAR) else "#"
    largest = max(shares.values(), default=0.0) or 1.0
    return "\n".join(
        f"{bits:>3} bits {share:6.1%} {bar * round(width * share / largest)}" for bits, share in shares.items()
    )


def _can_say(text: str) -> bool:
    """Whether standard output can write the text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def heat_map(found: HeatMap) -> Table:
    """Mean bits per weight by layer and module, each on a colour that tells few bits from many."""
    from rich.table import Table
    from rich.text import Text

    def cell(spot: Spot | None) -> Text:
        if spot is None:
            return Text("")
        shade = _SHADES[round(min(1.0, max(0.0, (spot.bits - 2) / 6)) * (len(_SHADES) - 1))]
        return Text(f" {spot.bits:.1f} ", style=f"{'black' if shade in _LIGHT else 'white'} on {shade}")

    made = Table(title="mean bits per weight", title_justify="left", title_style="bold", box=None, padding=(0, 0, 0, 1))
    modules = found.modules
    made.add_column("layer", justify="right")
    for module in modules:
        made.add_column(module.rsplit(".", 1)[-1], justify="center", overflow="fold")
    for layer in found.layers:
        if layer != OUTSIDE:
            made.add_row(layer, *(cell(found.at(layer, module)) for module in modules))
    if found.outside:
        made.caption = Text.assemble(*(part for spot in found.outside for part in (f"{spot.module} ", cell(spot), " ")))
        made.caption_justify = "left"
    return made


def weight_shares(allocation: Allocation) -> dict[int, float]:
    """Share of the weights that play each width."""
    import numpy as np

    counts = dict.fromkeys(allocation.strategies, 0.0)
    for tensor in allocation.tensors:
        widths = allocation.widths(tensor)
        for bits, cells in zip(*np.unique(widths, return_counts=True), strict=True):
            counts[int(bits)] += float(cells) / widths.size * tensor.weights
    total = sum(counts.values())
    return {bits: count / total for bits, count in counts.items()}


def certificate_values(allocation: Allocation) -> dict[str, Any]:
    """The certificate as JSON values."""
    proof = allocation.certificate
    return {**asdict(proof), "gap": proof.gap, "fill": proof.fill}


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values."""
    values = {**asdict(evaluation), "perplexity": evaluation.perplexity}
    if evaluation.tokens < FEWEST_TOKENS:
        values["too_few_tokens"] = True
    return values if evaluation.cosine is not None else {k: v for k, v in values.items() if k != "cosine"}


def evaluation_rows(packed: Evaluation, reference: Evaluation | None, text: str) -> list[tuple[str, str]]:
    """A model, beside its original if there is one, as a table's rows."""
    on = counted(packed.tokens, text)
    rows = [("measured on", on)]
    if packed.perplexity is not None:
        original = "" if reference is None else f" (original {reference.perplexity:.3f})"
        rows.append(("perplexity", f"{packed.perplexity:.3f}{original}"))
    if packed.kl is not None:
        rows.append(("KL to the original", f"{packed.kl:.4f} nats per token on {on}"))
    if packed.cosine is not None:
        rows.append(("cosine to the original", f"{packed.cosine:.5f}, mean of the windows' embeddings, on {on}"))
    if packed.top1 is not None:
        what = "top-1 agreement" if packed.cosine is None else "same nearest window"
        rows.append((what, f"{packed.top1:.2%}"))
    return rows


def certificate_rows(allocation: Allocation) -> list[tuple[str, str]]:
    """The certificate as a table's rows."""
    proof, unit = allocation.certificate, allocation.provenance.get("damage_unit", "")
    return [
        ("budget", f"{allocation.budget.label} = {proof.budget_bits // 8:,} bytes"),
        ("used", f"{proof.used_bits // 8:,} bytes ({proof.fill:.3%})"),
        ("price", f"{proof.price:.4g} {unit} per bit"),
        ("unilateral regret", f"{proof.unilateral_regret:.3g}"),
        ("exchange regret", f"{proof.exchange_regret:.3g}"),
        ("predicted damage", f"{proof.predicted_damage:.5g} {unit}"),
        ("lower bound", f"{proof.lower_bound:.5g} (gap {proof.gap:.3%})"),
    ]
