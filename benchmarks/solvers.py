"""Solvers on synthetic games: against the integer program, against each other on coupled games, and by size.

    python benchmarks/solvers.py --quick --json solvers.json

`nash-swarm bench-solvers` compares all solvers on four kinds of games by size; here are the questions that have tables
of their own in docs/theory.md: the textbook's integer program, strong coupling, and the quantile rule in NumPy.

Prints Markdown tables; `--json` writes the same figures under the same names.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from reporting import new_file, origin, write_json

from nash_swarm import registry
from nash_swarm.game import BitGame
from nash_swarm.game.demand import regret as regret_at
from nash_swarm.game.interactions import interaction_of
from nash_swarm.solvers.base import Solver
from nash_swarm.suite.memory import peak_memory
from nash_swarm.suite.synthetic.games import budget_of, numpy_quantile
from nash_swarm.suite.synthetic.games import separable as separable_game
from nash_swarm.testing.games import couple

COUPLED = ("uniform", "quantile", "greedy", "lagrangian", "annealing", "dp", "milp", "nash", "swarm", "nash-swarm")
Row = dict[str, Any]


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = task()
    return time.perf_counter() - start, result


def play(solver: Solver, game: BitGame) -> tuple[float, Any]:
    """Seconds of the play alone, without the certificate, and the play."""
    capacity = game.capacity(budget_of(game))
    return timed(lambda: solver.play(game, capacity, rng=np.random.default_rng(0), callback=lambda record: None))


def separable(agents: int, time_limit: float) -> list[Row]:
    """Against the integer program on one separable game."""
    game = separable_game(agents, 0)
    solvers: list[tuple[str, Solver]] = [
        ("lagrangian", registry.create("solvers", "lagrangian")),
        ("nash", registry.create("solvers", "nash")),
        ("milp", registry.create("solvers", "milp", time_limit=time_limit, reduce=False)),
        ("milp reduced", registry.create("solvers", "milp", time_limit=time_limit)),
    ]
    for _, solver in solvers:
        play(solver, separable_game(300, 1))  # compile
    rows = []
    for name, solver in solvers:
        seconds, found = play(solver, game)
        told = solver.solve(game, budget_of(game)).certificate if name in ("lagrangian", "nash") else None
        damage = game.total_damage(found.choices)
        bound = told.lower_bound if told else rows[0]["bound"]
        proven = bool(found.trace[-1]["proven"]) if name.startswith("milp") else None
        rows.append(
            {"solver": name, "agents": agents, "damage": damage, "bound": bound, "gap": damage / bound - 1,
             "seconds": seconds, "proven": proven}
        )  # fmt: skip
    for row in rows:
        row["times faster than milp"] = rows[2]["seconds"] / row["seconds"]
    return rows


def coupled(instances: int) -> list[Row]:
    """Every solver on random coupled games of 50 to 3000 agents."""
    rows = []
    for number in range(instances):
        rng = np.random.default_rng([7, number])
        agents = int(np.exp(rng.uniform(np.log(50), np.log(3000))))
        strength, likeness = float(rng.uniform(0.2, 1)), float(rng.uniform(0, 2))
        communities = int(rng.integers(2, 30))
        game = couple(
            rng, separable_game(agents, number), communities=communities, rank=16, strength=strength, likeness=likeness
        )
        costs, seconds = {}, {}
        for name in COUPLED:
            options = (
                {"most_tries": 2_000_000} if name == "annealing" else {"most_cells": 1 << 26} if name == "dp" else {}
            )
            seconds[name], found = play(registry.create("solvers", name, **options), game)
            costs[name] = game.total_damage(found.choices)
            if name == "nash-swarm":
                told = registry.create("solvers", name).solve(game, budget_of(game)).certificate
        best = min(costs.values())
        rows.append(
            {"instance": number, "agents": agents, "communities": communities, "likeness": likeness,
             "strength": strength, "bound": told.lower_bound, "gap": told.gap, "costs": costs, "seconds": seconds,
             "excess": {name: cost / best - 1 for name, cost in costs.items()},
             "nash-swarm is least": costs["nash-swarm"] <= best * (1 + 1e-12)}
        )  # fmt: skip
    return rows


def one_size(name: str, agents: int, coupled_game: bool) -> Row:
    """One solver on one large game, in a process of its own so that the peak memory is its own."""
    game = separable_game(agents, 0, shared=True)
    small = separable_game(1000, 1, shared=True)
    if coupled_game:
        rng = np.random.default_rng(0)
        game, small = (couple(rng, one, communities=100, rank=16) for one in (game, small))
    tables = game.damage.nbytes + (game.coupling.vectors.nbytes if game.coupling else 0)
    if name == "numpy quantile":
        seconds, regret = timed(lambda: numpy_quantile(game.damage))[0], None
    else:
        solver = registry.create("solvers", name)
        play(solver, small)  # compile
        seconds, found = play(solver, game)
        regret = None
        if found.price is not None:
            regret = regret_at(interaction_of(game).marginal(found.choices), found.choices, found.price)
    return {
        "solver": name, "agents": agents, "coupled": coupled_game, "seconds": seconds,
        "ns per agent": seconds / agents * 1e9, "unilateral regret": regret, "peak memory MB": peak_memory() / 1e6,
        "tables MB": tables / 1e6,
    }  # fmt: skip


def scaling(sizes: Sequence[int], coupled_sizes: Sequence[int]) -> list[Row]:
    cases = [(name, size, False) for size in sizes for name in ("numpy quantile", "quantile", "lagrangian", "nash")]
    cases += [
        (name, size, True) for size in coupled_sizes for name in ("nash", "nash-swarm")[: 2 if size < 10**6 else 1]
    ]
    rows = []
    for name, size, with_coupling in cases:
        command = [sys.executable, __file__, "--one", json.dumps([name, size, with_coupling])]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return rows


def show(title: str, rows: Sequence[Row], columns: dict[str, str]) -> None:
    """A Markdown table; `columns` maps names to format specifications."""
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [format(row[name], spec) if row[name] is not None else "" for name, spec in columns.items()]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", type=new_file, help="write all figures here")
    parser.add_argument(
        "--quick", action="store_true", help="games up to 10^6 agents, a minute for the integer program"
    )
    parser.add_argument("--large", action="store_true", help="also 10^8 agents (needs 8 GB)")
    parser.add_argument("--only", choices=("separable", "coupled", "scaling"), help="one of the three parts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_size(*json.loads(arguments.one))))
        return
    quick = arguments.quick
    sizes = [10**5, 10**6] + ([] if quick else [10**7]) + ([10**8] if arguments.large else [])
    results: dict[str, Any] = {
        **origin("numpy", "scipy", "numba"),
    }
    if arguments.only in (None, "separable"):
        results["separable"] = separable(10**5, 60.0 if quick else 600.0)
    if arguments.only in (None, "coupled"):
        results["coupled"] = coupled(20 if quick else 40)
        results["coupled summary"] = summary(results["coupled"])
    if arguments.only in (None, "scaling"):
        results["scaling"] = scaling(sizes, [10**4, 10**5] if quick else [10**4, 10**5, 10**6])
    report(results)
    write_json(arguments.json, results)


def summary(rows: Sequence[Row]) -> list[Row]:
    """How far each solver is from the best one, over all instances."""
    return [
        {
            "solver": name,
            "least on": sum(row["excess"][name] <= 1e-12 for row in rows),
            "mean excess": float(np.mean([row["excess"][name] for row in rows])),
            "largest excess": max(row["excess"][name] for row in rows),
            "mean seconds": float(np.mean([row["seconds"][name] for row in rows])),
        }
        for name in COUPLED
    ]


def report(results: dict[str, Any]) -> None:
    print(f"`{results['command']}`; {results['versions']}, {results['machine']}")
    columns = {
        "separable": {"solver": "", "agents": "", "damage": ".6f", "gap": ".2e", "seconds": ".3f",
                      "times faster than milp": ".1f"},
        "coupled": {"instance": "", "agents": "", "bound": ".5g", **dict.fromkeys(COUPLED, ".5g"), "gap": ".2%"},
        "coupled summary": {"solver": "", "least on": "", "mean excess": ".3%", "largest excess": ".2%",
                            "mean seconds": ".3f"},
        "scaling": {"solver": "", "agents": ".0e", "coupled": "", "seconds": ".3f", "ns per agent": ".1f",
                    "unilateral regret": ".1e", "peak memory MB": ".0f", "tables MB": ".0f"},
    }  # fmt: skip
    for title, formats in columns.items():
        if title in results:
            show(title, [{**row, **row.get("costs", {})} for row in results[title]], formats)
    if "coupled" in results:
        least = sum(row["nash-swarm is least"] for row in results["coupled"])
        print(f"\nnash-swarm is not above any other solver on {least} of {len(results['coupled'])} instances.")


if __name__ == "__main__":
    main()
