"""Every solver on every synthetic game, each measurement in a process of its own and kept when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.progress import working
from nash_swarm.solvers.base import Solver
from nash_swarm.suite.folder import ReportFolder
from nash_swarm.suite.isolation import OutOfTime, Unfinished, run_alone
from nash_swarm.suite.record import library_versions
from nash_swarm.suite.synthetic.cells import Reference, Row, find_reference, measure_solver
from nash_swarm.suite.synthetic.games import FAMILIES, make_game, table_bytes

SIZES = (10**3, 10**4, 10**5, 10**6)
COLUMNS = (
    "game", "agents", "solver", "damage", "potential", "lower bound", "gap", "unilateral regret", "seconds",
    "ns per agent", "peak memory MB", "added by the solver MB", "tables MB", "status",
)  # fmt: skip
DONE = "ok"
"""Status of a row that has figures; any other says why there are none."""
KINDS = ("bounds", "cells")
"""Kinds of finished work in a folder."""
_PATIENCE = 10
"""Times the limit that the lower bound may take: it is looked for once a game."""


def compare_solvers(
    folder: ReportFolder,
    solvers: Sequence[str | Solver] | None = None,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    sizes: Sequence[int] = SIZES,
    limit: float = 10.0,
    most_memory: float = 4e9,
    seed: int = 0,
    quiet: bool = False,
) -> list[Row]:
    """Damage, gap, time and memory of solvers on synthetic games; one row each, with `COLUMNS`.

    A cell that cannot be measured has a row too, whose status says why: the tables would not fit, the solver refused,
    took too long, or had taken too long on a smaller size.

    Args:
        folder: where finished measurements are kept, and those of an earlier run with the same settings are found; made
            with `KINDS`.
        solvers: names or instances; all registered ones if not given.
        families: kinds of games, of `games.FAMILIES`.
        sizes: numbers of agents.
        limit: seconds that a solver may play.
        most_memory: bytes that a game's tables may take.
        seed: of games and solvers.
        quiet: no progress bar.

    Raises:
        UsageError: an unknown name, no size, or a limit that is not positive.
    """
    chosen = check_question(solvers, families, sizes, limit)
    rows: list[Row] = []
    with working(len(families) * len(sizes) * len(chosen), label="solvers", unit="cell", quiet=quiet) as work:
        for family in families:
            too_slow: dict[str, str] = {}
            for agents in sorted(set(sizes)):
                work.describe(f"{family}, {agents:.0e} agents")
                needed = table_bytes(family, agents)
                fits = needed <= most_memory
                reference = _reference(folder, family, agents, seed, limit) if fits else None
                for solver in chosen:
                    if not fits:
                        reason = f"the tables take {needed / 1e9:.1f} GB, more than {most_memory / 1e9:g} GB"
                        found: Row = {"status": f"skipped: {reason}"}
                    elif solver.name in too_slow:
                        found = {"status": too_slow[solver.name]}
                    else:
                        found, timed_out = _cell(folder, solver, family, agents, seed, reference, limit)
                        if timed_out:
                            too_slow[solver.name] = f"skipped: {agents:.0e} agents took more than {limit:g} s"
                    cell = {"game": family, "agents": agents, "solver": solver.name}
                    rows.append({**dict.fromkeys(COLUMNS), **cell, **found})
                    work.update()
    return rows


def check_question(
    solvers: Sequence[str | Solver] | None, families: Sequence[str], sizes: Sequence[int], limit: float
) -> list[Solver]:
    """The solvers as instances, if the question can be answered.

    Raises:
        UsageError: see `compare_solvers`.
    """
    chosen = [
        registry.create("solvers", solver) if isinstance(solver, str) else solver
        for solver in (registry.names("solvers") if solvers is None else solvers)
    ]
    if not (chosen and families and sizes and limit > 0):
        raise UsageError("compare at least one solver on one game of one size, with a limit above 0 seconds")
    for family in families:
        for size in sizes:
            make_game(family, min(size, 1))  # refuses unknown names and sizes below one
    return chosen


def _reference(folder: ReportFolder, family: str, agents: int, seed: int, limit: float) -> Reference | None:
    """`None` where finding the bound takes too long; rows then have no gap."""

    def find() -> dict[str, Any]:
        try:
            return asdict(run_alone(find_reference, family, agents, seed, limit=limit * _PATIENCE))
        except OutOfTime:
            return {"price": None, "bound": None}

    found = folder.find_or("bounds", [family, agents, seed, limit, library_versions()], find)
    return None if found["bound"] is None else Reference(found["price"], found["bound"])


def _cell(
    folder: ReportFolder, solver: Solver, family: str, agents: int, seed: int, reference: Reference | None, limit: float
) -> tuple[Row, bool]:
    """Figures, or the reason why there are none, and whether that was the time."""

    def play() -> dict[str, Any]:
        try:
            row = run_alone(measure_solver, solver, family, agents, seed, reference, limit=limit)
        except Unfinished as error:
            return {"row": {"status": str(error)}, "timed_out": isinstance(error, OutOfTime)}
        return {"row": {**row, "status": DONE}, "timed_out": False}

    origin = registry.origin("solvers", solver.name)
    asked = [solver.name, origin, asdict(solver), family, agents, seed, limit, library_versions()]
    found = folder.find_or("cells", asked, play)
    return found["row"], found["timed_out"]
