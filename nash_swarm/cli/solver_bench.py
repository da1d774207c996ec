"""`nash-swarm bench-solvers`."""

from __future__ import annotations

import math
import shlex
import sys
from typing import Annotated

import typer

from nash_swarm.cli import early, options
from nash_swarm.errors import UsageError


def bench_solvers(
    output: options.Out,
    solvers: Annotated[str, typer.Option(help="Names, comma-separated; see `nash-swarm solvers`.")] = "all",
    games: Annotated[str, typer.Option(help="Kinds, comma-separated: separable, coupled, ties, heavy-tailed.")] = "all",
    sizes: Annotated[str, typer.Option(help="Numbers of agents, up to 1e7 or what memory allows.")] = "1e3,1e4,1e5,1e6",
    limit: Annotated[float, typer.Option(help="Seconds that one solver may play one game.")] = 10.0,
    memory: Annotated[str, typer.Option(help="How large a game's tables may be; larger ones are left out.")] = "4GB",
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare solvers on synthetic games: damage, certified gap, time and memory by number of agents.

    Every measurement is a process of its own, and kept in the folder: a run that was killed repeats nothing. Writes
    results.csv, results.json and report.md, and a figure, solvers.png and solvers.svg, if matplotlib is installed (the
    extra `report`).
    """
    names = None if solvers == "all" else solvers.split(",")
    numbers = _read_sizes(sizes)
    early.check_names("solvers", names or ())
    early.check_size(memory)
    if not 0 < limit < math.inf:
        raise UsageError(f"--limit must be a positive number of seconds, not {limit:g}")

    from nash_swarm.cli import show
    from nash_swarm.game.budget import parse_size
    from nash_swarm.suite.folder import ReportFolder, check_report_folder
    from nash_swarm.suite.synthetic.contest import KINDS, check_question, compare_solvers
    from nash_swarm.suite.synthetic.games import FAMILIES
    from nash_swarm.suite.synthetic.report import FILES, SHOWN, cells, results_of, write_files

    families = tuple(FAMILIES) if games == "all" else games.split(",")
    most_memory = parse_size(memory)
    check_question(names, families, numbers, limit)
    check_report_folder(output, kinds=KINDS, files=FILES)
    folder = ReportFolder(output, kinds=KINDS)
    rows = compare_solvers(
        folder, names, families=families, sizes=numbers, limit=limit, most_memory=most_memory, seed=seed, quiet=quiet,
    )  # fmt: skip
    command = shlex.join(["nash-swarm", *sys.argv[1:]])
    results = results_of(rows, command, seed=seed, limit=limit)
    written = [path.name for path in write_files(results, folder.path, overwrite=True)]
    if json:
        show.print_json({"output": str(output), "files": written, **results})
        return
    for family in dict.fromkeys(row["game"] for row in rows):
        body = cells(row for row in rows if row["game"] == family)
        show.print_rich(show.table(f"{family} games", (*SHOWN, ""), body))
    print(f"{', '.join(written)} in {output}")


def _read_sizes(text: str) -> tuple[int, ...]:
    """`"1e3,20000"` as numbers.

    Raises:
        UsageError: one is no whole number.
    """
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = [0.5]
    if not all(abs(size) < 1e15 and size == int(size) for size in sizes):
        raise UsageError(f"cannot read the sizes {text!r}; write whole numbers, like 1e3,20000,1e6")
    return tuple(int(size) for size in sizes)
