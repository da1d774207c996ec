"""Rows of the comparison: as CSV, as Markdown, and each peer's bits with what stands there against what is ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError
from nash_swarm.suite.markdown import markdown_table, number
from nash_swarm.suite.results import read_table, save_csv

OURS = "nash-swarm"
"""What the methods of our own rows begin with."""
BASELINE = "baseline"
"""What those begin with that are neither ours nor a peer's: with our rounding but not our allocation."""
_FULL = 16.0
NEAR = 0.1
"""Bits up to which a peer stands at the same size."""
HALF = 0.5


@dataclass(frozen=True)
class Row:
    """One quantized model.

    Attributes:
        method, settings: what was done.
        bits_incl_overhead: all bytes of the quantized matrices times 8, over their weights.
        loss, ppl: on the test text; nats per token.
        kl: KL(reference || model), nats per token.
        top1: share of tokens on which model and reference agree on the most likely one.
        seconds: wall time of making it, `None` if not known.
    """

    method: str
    settings: str
    bits_incl_overhead: float
    loss: float
    ppl: float
    kl: float
    top1: float
    seconds: float | None = None

    @property
    def ours(self) -> bool:
        """Whether it is a row of nash-swarm."""
        return self.method.startswith(OURS)


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Comparison:
    """What stands at a peer's bits.

    Attributes:
        bits: the peer's.
        best: the peer with the least KL within 0.1 bit.
        ours: our row with the least KL at no more bits; `None` if there is none.
    """

    bits: float
    best: Row
    ours: Row | None

    @property
    def ratio(self) -> float | None:
        """Our KL over the best peer's."""
        return None if self.ours is None else self.ours.kl / self.best.kl

    @property
    def halved(self) -> bool:
        """Whether ours is lower by 50 % or more."""
        return self.ratio is not None and self.ratio <= HALF

    def to_dict(self) -> dict[str, Any]:
        """A row of a record."""
        return {
            "bits": self.bits,
            "best": f"{self.best.method}, {self.best.settings} ({self.best.bits_incl_overhead:.4f})",
            "best kl": self.best.kl,
            "our bits": None if self.ours is None else self.ours.bits_incl_overhead,
            "our kl": None if self.ours is None else self.ours.kl,
            "ratio": self.ratio,
            "halved": self.halved,
        }


def compare(rows: Iterable[Row], slack: float = 5e-5) -> list[Comparison]:
    """One comparison for every number of bits that a peer has.

    Args:
        rows: ours and theirs.
        slack: bits of a peer are taken for this much more, because tables round them to four digits.
    """
    everyone = list(rows)
    own = [row for row in everyone if row.ours]
    peers = [row for row in everyone if not row.ours and not row.method.startswith(BASELINE)]
    found = []
    for bits in sorted({round(row.bits_incl_overhead, 4) for row in peers}):
        near = [row for row in peers if abs(row.bits_incl_overhead - bits) <= NEAR + 1e-9]
        fitting = [row for row in own if row.bits_incl_overhead <= bits + slack]
        least = min(fitting, key=lambda row: row.kl, default=None)
        found.append(Comparison(bits, min(near, key=lambda row: row.kl), least))
    return found


def read_rows(path: str | Path, leave_out: Sequence[str] = ()) -> list[Row]:
    """Rows of a CSV with our columns; not those of 16 bits and more, nor methods that begin with one of `leave_out`.

    Raises:
        DataError: no such file, a column is missing, or a cell that should be a number is none.
    """
    found = []
    for place, line in enumerate(read_table(path), 2):
        missing = [name for name in COLUMNS if name not in line]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
        if line["method"].startswith(tuple(leave_out)):
            continue
        try:
            numbers = {name: float(line[name]) for name in COLUMNS[2:-1]}
            seconds = float(line["seconds"]) if line["seconds"] else None
        except ValueError as error:
            raise DataError(f"{path}, line {place}: {error}") from error
        if numbers["bits_incl_overhead"] < _FULL:
            found.append(Row(line["method"], line["settings"], **numbers, seconds=seconds))
    return found


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Rows as CSV, by bits."""
    digits = {"bits_incl_overhead": ".4f", "loss": ".4f", "ppl": ".2f", "kl": ".5f", "top1": ".4f", "seconds": ".1f"}
    found = map(asdict, by_bits(rows))
    shown = [{name: number(value, digits.get(name, "")) for name, value in row.items()} for row in found]
    save_csv(shown, COLUMNS, path, overwrite=True)


def by_bits(rows: Iterable[Row]) -> list[Row]:
    """In the order in which they are read best."""
    return sorted(rows, key=lambda row: (round(row.bits_incl_overhead, 4), -row.kl))


def markdown(rows: Iterable[Row]) -> str:
    """All rows."""
    body = [
        [
            f"**{row.method}**" if row.ours else row.method, row.settings, f"{row.bits_incl_overhead:.4f}",
            f"{row.loss:.4f}", f"{row.kl:.4f}", f"{100 * row.top1:.1f} %",
        ]
        for row in by_bits(rows)
    ]  # fmt: skip
    return "\n".join(markdown_table(["method", "settings", "bits", "loss", "KL", "top-1"], body, texts=2))


def markdown_comparisons(comparisons: Iterable[Comparison]) -> str:
    """One line for every number of bits of a peer; says where ours is not 50 % lower."""
    head = ["bits of a peer", "best peer within 0.1 bit", "its KL", "ours, bits", "KL", "ratio", "lower by half"]
    formats = {"bits": ".4f", "best": "", "best kl": ".4f", "our bits": ".4f", "our kl": ".4f", "ratio": ".2f"}
    body = []
    for each in comparisons:
        verdict = "no, not even lower"
        if each.ours is None:
            verdict = "no row"
        elif each.ours.kl < each.best.kl:
            verdict = "yes" if each.halved else "no"
        values = each.to_dict()
        body.append([*(number(values[name], how) for name, how in formats.items()), verdict])
    return "\n".join(markdown_table(head, body, texts=2))
