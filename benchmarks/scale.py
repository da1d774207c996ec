"""How the solvers scale: 10^5 to 10^9 agents, a 70B-class model's tiles, every weight of a real model.

    python benchmarks/scale.py sizes                  # in memory up to 10^8 agents (needs 8 GB), beside np.quantile
    python benchmarks/scale.py sizes --quick          # up to 10^7
    python benchmarks/scale.py stream                 # 10^9 agents and a 70B-class model's tiles, never resident
    python benchmarks/scale.py smollm2                # measure and solve all 134 million weights of the demo model
    python benchmarks/scale.py report FILE...         # tables of files written before

Every row is a process of its own, so that its peak memory is its own. Times are the best of several repetitions where
games are small. `--json FILE` writes the same figures under the same names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import new_file, origin, write_json

from nash_swarm import registry
from nash_swarm.game import BitGame
from nash_swarm.game.certificate import Certificate, certify
from nash_swarm.game.streaming import CHUNK, StreamedGame, certify_stream
from nash_swarm.solvers.base import Play
from nash_swarm.solvers.streaming import play_stream
from nash_swarm.suite.memory import forget_peak, peak_memory
from nash_swarm.suite.synthetic.games import WIDTHS, budget_of, numpy_quantile
from nash_swarm.suite.synthetic.streams import Synthetic, transformer_tiles
from solvers import show

LLAMA_70B = {
    "hidden": 8192, "layers": 80, "heads": 64, "kv_heads": 8, "intermediate": 28672, "vocabulary": 128256,
}  # fmt: skip

Row = dict[str, Any]
Task = Callable[[], Play]


def streamed(agents: int) -> StreamedGame:
    return StreamedGame(WIDTHS, Synthetic.even(agents, WIDTHS), np.array([WIDTHS]), 1000, agents)


def resident(game: StreamedGame) -> BitGame:
    """The same game with its table in memory."""
    damage = np.empty(game.source.shape, np.float32)
    for start in range(0, game.agents, CHUNK):
        damage[start : start + CHUNK] = game.source.read(start, min(start + CHUNK, game.agents))
    memory = np.broadcast_to(game.memory, damage.shape)
    return BitGame(game.strategies, damage, memory, game.fixed_bits, game.parameters)


def task_of(name: str, game: BitGame | StreamedGame) -> Task:
    """The play alone, without the certificate."""
    capacity = game.capacity(budget_of(game))
    if isinstance(game, StreamedGame):
        return lambda: play_stream(game, capacity)
    if name == "numpy quantile":
        return lambda: Play(numpy_quantile(game.damage))
    solver = registry.create("solvers", name)
    return lambda: solver.play(game, capacity, rng=np.random.default_rng(0), callback=lambda record: None)


def certificate_of(game: BitGame | StreamedGame, play: Play) -> Certificate:
    if isinstance(game, BitGame):
        return certify(game, budget_of(game), play.choices, play.price)
    assert play.price is not None
    return certify_stream(game, budget_of(game), play.choices, play.price)


def best_of(task: Callable[[], Any], agents: int) -> tuple[float, float, Any]:
    """Seconds of the wall and of the processors, the least of several repetitions, and what came out."""
    walls, works = [], []
    for _ in range(max(1, min(15, 10**7 // agents))):
        start, work = time.perf_counter(), time.process_time()
        found = task()
        walls.append(time.perf_counter() - start)
        works.append(time.process_time() - work)
    return min(walls), min(works), found


def figures(name: str, game: BitGame | StreamedGame, compiled: Callable[[], Any]) -> Row:
    compiled()
    seconds, work, play = best_of(task_of(name, game), game.agents)
    row: Row = {
        "solver": name, "agents": game.agents, "seconds": seconds, "ns per agent": seconds / game.agents * 1e9,
        "processor ns per agent": work / game.agents * 1e9, "peak MB": peak_memory() / 1e6,
    }  # fmt: skip
    if name == "numpy quantile":  # it meets no budget, so there is nothing to certify
        return row
    start = time.perf_counter()
    told = certificate_of(game, play)
    return row | certified(game.parameters, told, time.perf_counter() - start) | {"steps of play": len(play.trace)}


def certified(parameters: int, told: Certificate, seconds: float) -> Row:
    return {
        "certificate seconds": seconds, "unilateral regret": told.unilateral_regret,
        "exchange regret": told.exchange_regret, "damage": told.predicted_damage, "gap": told.gap,
        "budget bytes": told.budget_bits / 8, "used bytes": told.used_bits / 8,
        "unused bits": told.budget_bits - told.used_bits, "bits per parameter": told.used_bits / parameters,
    }  # fmt: skip


def one_size(name: str, agents: int) -> Row:
    make = streamed if name == "streaming" else lambda size: resident(streamed(size))

    def compiled() -> None:
        for small in (1000, 100_000):  # one span of agents and several
            task_of(name, make(small))()

    return figures(name, make(agents), compiled)


def one_stream(name: str, agents: int) -> Row:
    game = streamed(agents) if agents else transformer_tiles(WIDTHS, **LLAMA_70B)[0]
    row = figures("streaming", game, lambda: task_of("streaming", streamed(100_000))())
    return {"game": name, **row, "parameters": game.parameters}


def one_model(estimator: str) -> list[Row]:
    """Measure every weight of the demo model and play, in one process."""
    from nash_swarm.models.source import load_source
    from nash_swarm.pipeline.measuring import measure

    source = load_source("smollm2")
    before = peak_memory()
    start, work = time.perf_counter(), time.process_time()
    game = measure(
        source.model, source.tokenizer, damage=estimator, granularity="parameter", name="smollm2", quiet=True
    )
    rows: list[Row] = [
        {"stage": f"measure {estimator}", "agents": game.agents, "seconds": time.perf_counter() - start,
         "processor seconds": time.process_time() - work, "peak MB": peak_memory() / 1e6, "loaded MB": before / 1e6}
    ]  # fmt: skip
    del source
    stream = StreamedGame.of(game)
    for name in ("numpy quantile", "lagrangian", "nash", "streaming"):
        for small in (1000, 100_000):
            task_of(name, streamed(small) if name == "streaming" else resident(streamed(small)))()
        forget_peak()
        row = figures(name, stream if name == "streaming" else game, lambda: None)
        rows.append({"stage": name, **row, "processor seconds": row["processor ns per agent"] * game.agents / 1e9})
    return rows


ONE: dict[str, Callable[..., Any]] = {"sizes": one_size, "stream": one_stream}
COLUMNS = {
    "sizes": {"solver": "", "agents": ".0e", "seconds": ".3f", "ns per agent": ".1f", "processor ns per agent": ".1f",
              "certificate seconds": ".2f", "unilateral regret": ".1e", "gap": ".1e", "unused bits": "",
              "peak MB": ".0f"},
    "stream": {"game": "", "agents": "", "seconds": ".1f", "ns per agent": ".1f", "processor ns per agent": ".1f",
               "steps of play": "", "certificate seconds": ".1f", "unilateral regret": ".1e", "gap": ".1e",
               "used bytes": ".3f", "unused bits": "", "bits per parameter": ".4f", "peak MB": ".0f"},
    "smollm2": {"stage": "", "agents": "", "seconds": ".1f", "processor seconds": ".1f", "certificate seconds": ".1f",
                "unilateral regret": ".1e", "gap": ".1e", "unused bits": "", "bits per parameter": ".4f",
                "peak MB": ".0f"},
}  # fmt: skip


def cases(part: str, quick: bool, largest: int) -> list[list[Any]]:
    top = 7 if quick else 8
    if part == "sizes":
        names = ("numpy quantile", "lagrangian", "nash", "streaming")
        return [[name, 10**power] for power in range(5, top + 1) for name in names]
    return [[f"{largest:.0e} synthetic", largest], ["70B-class tiles", 0]]


def run(part: str, arguments: argparse.Namespace) -> list[Row]:
    if part == "smollm2":
        return one_model(arguments.damage)
    rows = []
    for case in cases(part, arguments.quick, int(arguments.largest)):
        command = [sys.executable, __file__, part, "--one", json.dumps(case)]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(f"{case}: {rows[-1]['seconds']:.3f} s", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*COLUMNS, "report"))
    parser.add_argument("files", nargs="*", help="for report: files that --json wrote")
    parser.add_argument("--json", metavar="FILE", type=new_file, help="write all figures here")
    parser.add_argument("--quick", action="store_true", help="no more than 10^7 agents in memory")
    parser.add_argument("--largest", type=float, default=1e9, help="agents of the largest streamed game")
    parser.add_argument("--damage", default="fisher", help="estimator that measures the demo model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(ONE[arguments.part](*json.loads(arguments.one))))
        return
    if arguments.part == "report":
        for file in arguments.files:
            report(json.loads(Path(file).read_text(encoding="utf-8")))
        return
    results = {
        **origin("numpy", "scipy", "numba"),
        "load before": os.getloadavg()[0],
        arguments.part: run(arguments.part, arguments),
    }  # fmt: skip
    report(results)
    write_json(arguments.json, results)


def report(results: dict[str, Any]) -> None:
    print(f"\n`{results['command']}`; {results['versions']}, {results['machine']}")
    for part, columns in COLUMNS.items():
        rows: Sequence[Row] = results.get(part, [])
        if rows:
            show(part, [{**dict.fromkeys(columns), **row} for row in rows], columns)


if __name__ == "__main__":
    main()
