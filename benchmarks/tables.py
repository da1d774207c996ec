"""The tables of docs/ from the records in benchmarks/results/: held against them, or written anew.

    python benchmarks/tables.py
    python benchmarks/tables.py --write docs/performance.md

Without `--write`, prints the tables that are not what their records say, and ends with 1 if there are any. A table
stands between two comments, of which the first says what is in it::

    <!-- table: kernels.json vector where:kernel=int4
    kernel | us:,.0f | share of read = share:.2f
    -->
    | kernel | us | share |
    ...
    <!-- end -->

Its first line names a file of benchmarks/results/, a table in it (keys inside keys are joined by dots), and options:

    where:COLUMN=VALUE        only such rows
    sort=COLUMN,COLUMN        in this order
    merge=COLUMN              rows that differ in nothing else that is shown are one, its values side by side
    by=COLUMN across=COLUMNS  one line for all rows of a value of the first; columns are told apart by the others

Its second line has the columns: a name (or two of one cell, as in `kl ± error` and `largest / kl`), after `@` the
values of `across`, after `=` a heading, and after `:` a format; columns without a format are text, and those of the
format `code` are text in backquotes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nash_swarm.suite.markdown import escape
from nash_swarm.suite.record import load_record

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
_TABLE = re.compile(r"(<!-- table: ([^\n]+)\n([^\n]+)\n-->\n)(.*?)(<!-- end -->)", re.DOTALL)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a page's table.

    Attributes:
        name: of the rows' value, or of two with ` ± ` or ` / ` between.
        at: values of the columns `across`, if rows are put side by side.
        heading: what stands above it.
        how: format of its numbers; empty for text.
    """

    name: str
    at: str
    heading: str
    how: str

    @classmethod
    def read(cls, text: str) -> Column:
        """The column that a page asks for."""
        text, _, how = (part.strip() for part in text.rpartition(":")) if ":" in text else (text.strip(), "", "")
        where, named, heading = (part.strip() for part in text.partition("="))
        name, _, at = where.partition("@")
        return cls(name, at, heading if named else at or name, how)

    def cell(self, row: Row | None) -> str:
        """What stands in the column."""
        if row is None:
            return ""
        if self.name in row:
            return _text(row[self.name], self.how)
        for between in (" ± ", " / "):
            if between in self.name:
                return between.join(_text(row[part], self.how) for part in self.name.split(between))
        raise SystemExit(f"no column {self.name!r} in a row of {', '.join(row)}")


def _text(value: Any, how: str) -> str:
    if value is None:
        return ""
    if how == "code":
        return f"`{value}`"
    if isinstance(value, str) or not how:
        return str(value)
    if value == 0 and how[-1] in "eg":
        return "0"
    # 1e-07 is 1e-7, and percent signs stand apart
    return re.sub(r"e([-+])0?(\d+)$", lambda found: f"e{found[1].strip('+')}{found[2]}", format(value, how)).replace(
        "%", " %"
    )


def table(first: str, second: str) -> str:
    """The Markdown of the table that these two lines of a page ask for."""
    file, name, *rest = shlex.split(first)
    where = [word.removeprefix("where:").partition("=") for word in rest if word.startswith("where:")]
    options = dict(word.split("=", 1) for word in rest if not word.startswith("where:"))
    rows: Any = _record(file)
    for key in name.split("."):
        rows = rows[key]
    rows = [row for row in rows if all(str(row.get(column)) == value for column, _, value in where)]
    if "sort" in options:
        rows = sorted(rows, key=lambda row: [row[column] for column in options["sort"].split(",")])
    columns = [Column.read(text) for text in re.split(r" \| ", second)]
    lines = (
        _side_by_side(rows, columns, options) if "by" in options else [[c.cell(row) for c in columns] for row in rows]
    )
    if "merge" in options:
        lines = _merged(lines, next(k for k, column in enumerate(columns) if column.name == options["merge"]))
    rule = "|" + "".join("---:|" if column.how not in ("", "code") else "---|" for column in columns)
    head = [column.heading for column in columns]
    return "\n".join([_line(head), rule, *map(_line, lines)]) + "\n"


def _side_by_side(rows: Iterable[Row], columns: Sequence[Column], options: Mapping[str, str]) -> list[list[str]]:
    found: dict[Any, dict[str, Row]] = {}
    for row in rows:
        key = ",".join(str(row[name]) for name in options["across"].split(","))
        found.setdefault(row[options["by"]], {"": row})[key] = row
    return [[column.cell(those.get(column.at)) for column in columns] for those in found.values()]


def _merged(lines: Iterable[list[str]], place: int) -> list[list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        found.setdefault((*line[:place], *line[place + 1 :]), []).append(line[place])
    return [[*rest[:place], ", ".join(names), *rest[place:]] for rest, names in found.items()]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


@cache
def _record(file: str) -> Mapping[str, Any]:
    return load_record(RESULTS / file)


def filled(page: str) -> str:
    """The page with every table as its record has it."""
    return _TABLE.sub(lambda found: found[1] + table(found[2], found[3]) + found[5], page)


def main() -> None:
    arguments = _arguments()
    wrong = 0
    for path in arguments.pages or PAGES:
        text = path.read_text(encoding="utf-8")
        if arguments.write:
            path.write_text(filled(text), encoding="utf-8")
            continue
        for found in _TABLE.finditer(text):
            if found[4] != table(found[2], found[3]):
                print(f"{path}: not what its record says: {found[2]}")
                wrong += 1
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="those of docs/ and README.md by default")
    parser.add_argument("--write", action="store_true", help="replace the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
