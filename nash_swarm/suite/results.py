"""`results.csv` and `results.json`: every figure of a report for programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError
from nash_swarm.files.atomic import new_file
from nash_swarm.suite.record import origin, save_record
from nash_swarm.suite.rows import COLUMNS, Row

CSV = "results.csv"
JSON = "results.json"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Results:
    """A report's contents.

    Attributes:
        rows: its figures.
        command: the command line that makes them again.
        details: what a page shows of a row beside its figures, by the row's key: `trace` (records by iteration)
            and `allocation` (the key of its map).
        maps: heat maps of allocations by their keys, as JSON values.
        failures: cells that could not be, with the reason: `model`, `method`, `bits` and `error`.
        peers: rows of other tools, see `read_peers`.
        facts: anything else to be known about the run.
    """

    rows: tuple[Row, ...]
    command: str = ""
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: tuple[Mapping[str, Any], ...] = ()
    peers: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_csv(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: str | Path, *, overwrite: bool = False
) -> None:
    """Write rows as CSV; `None` is an empty cell.

    Raises:
        UsageError: there is a file of that name and `overwrite` is not set.
        DataError: the file cannot be written.
    """
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The lines of any CSV file with a header, as text.

    Raises:
        DataError: no such file, or not UTF-8 CSV with a header.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream, strict=True))
    except FileNotFoundError:
        raise DataError(f"no table at {path}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path} as CSV: {error}") from error
    if any(None in line or None in line.values() for line in lines):
        raise DataError(f"{path} is damaged: its lines have not all as many cells as its header")
    return lines


def write_results(results: Results, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write the rows as CSV, and them and everything but their details as a record; returns the files.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    written = [Path(folder) / CSV, Path(folder) / JSON]
    save_csv(map(asdict, results.rows), COLUMNS, written[0], overwrite=overwrite)
    values = {
        "format": _FORMAT,
        **origin(results.command),
        **results.facts,
        "rows": [asdict(row) for row in results.rows],
        "failures": [dict(failure) for failure in results.failures],
    }
    save_record(written[1], values, overwrite=overwrite)
    return written
