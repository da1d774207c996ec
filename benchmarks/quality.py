"""What each step of the pipeline brings on unseen text.

    python benchmarks/quality.py MODEL --text CALIBRATION --eval-text HELD_OUT --scope linear --bits 3.172 --json FILE

Every row is at the same budget, everything included. `uniform` and `bargain` measure and round (by GPTQ) on
`--game-windows` windows of the calibration text, with blocks as agents, even levels and groups of 64; `tiles` with
tiles, `levels` with normal levels, too, as (unless `--granularity` and `--levels` say otherwise) all rows after them;
`more text` rounds on `--windows`; `descent` rounds by the method of that name; `narrow` does so with groups of
`--group-size`; to that, `tuned` tunes on `--tuning-windows`. Figures are on windows that nothing has seen. With several
seeds every row is made with each, on windows drawn anew but judged on the same ones, and a last table has their means.
`--json FILE` is rewritten after every row, and a run that finds it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from reporting import FIGURES, origin, own_file, take_up, write_json

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.calibration.text import Text, choose_windows, cut_windows, load_text
from nash_swarm.caveats import counted
from nash_swarm.damage.fisher import Fisher
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.models.source import load_source
from nash_swarm.names import DEFAULT_QUANTIZER, LEVELS, Granularity, Levels, default_levels
from nash_swarm.pipeline.tuning import tune
from nash_swarm.recipe import DEFAULT, EFFORTS
from nash_swarm.suite.memory import forget_peak, peak_memory

STEPS = ("uniform", "bargain", "tiles", "levels", "more text", "descent", "narrow", "tuned")
COLUMNS = ("seed", "bits", "step", "used bits", "kl", "loss", "delta loss", "seconds", "processor seconds", "peak MB")

WIDE = 64
"""Columns of a group before `narrow`."""

Row = dict[str, Any]


class Ladder:
    """One model and its texts; rows that are done are not repeated."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.source = load_source(arguments.model)
        self.text = load_text(arguments.text)
        held_out = load_text(arguments.eval_text or arguments.text)
        self.part = "all" if arguments.eval_text else "calibration"
        part = "all" if arguments.eval_text else "held-out"
        self.unseen = self._windows(held_out, arguments.eval_windows, part, arguments.seed[0])
        self.damage = Fisher(arguments.damping, arguments.labels, arguments.whole_windows)
        self.values: dict[str, Any] = {
            **origin("torch", "transformers", "numpy"),
            "model": self.source.name, "note": self.source.note, "scope": arguments.scope, "seeds": arguments.seed,
            "group sizes": [WIDE, arguments.group_size],
            "damage": asdict(self.damage),
            "calibration": f"{self.text.source}: {arguments.game_windows}, {arguments.windows}, "
            f"{arguments.tuning_windows} windows of {self.unseen.shape[1]}",
            "evaluation": counted(self.unseen.size, held_out.source), "reference_loss": None, "rows": [],
        }  # fmt: skip
        take_up(arguments.json, self.values)
        self._draw(arguments.seed[0])

    @property
    def rows(self) -> list[Row]:
        return self.values["rows"]  # type: ignore[no-any-return]

    def _windows(self, text: Text, count: int, part: Literal["all", "calibration", "held-out"], seed: int) -> Any:
        cut = cut_windows(text, self.source.tokenizer, length=self.arguments.length, part=part)
        return choose_windows(cut, count, np.random.default_rng(seed))

    def _draw(self, seed: int) -> None:
        """Take the windows of a seed, on which nothing is measured yet."""
        sizes = (self.arguments.game_windows, self.arguments.windows, self.arguments.tuning_windows)
        game, rounding, self._tuning_windows = (self._windows(self.text, size, self.part, seed) for size in sizes)
        self._seed, self._game_windows, self._rounding = seed, game, Calibration(rounding, self.text.source)
        self._games: dict[tuple[Granularity, Levels, int], BitGame] = {}

    def game(self, granularity: Granularity, levels: Levels, group_size: int = WIDE) -> BitGame:
        """Measured when it is first needed."""
        key = (granularity, levels, group_size)
        if key not in self._games:
            self._games[key] = ns.measure(
                self.source.model, damage=self.damage, tokens=self._game_windows, scope=self.arguments.scope,
                seed=self._seed, name=self.source.name, granularity=granularity, levels=levels,
                group_size=group_size, quiet=True,
            )  # fmt: skip
        return self._games[key]

    def run(self, seed: int, bits: float, steps: list[str]) -> None:
        """The rows of one seed and budget."""
        if seed != self._seed:
            self._draw(seed)
        blocks, tiles = partial(self.game, "block", "uniform"), partial(self.game, "tile", "uniform")
        wide = partial(self.game, self.arguments.granularity, self.arguments.levels)

        @cache
        def descended(group_size: int) -> Any:
            return self._packed(wide(group_size), bits)

        narrow = partial(descended, self.arguments.group_size)

        make: dict[str, Callable[[], Any]] = {
            "uniform": lambda: self._packed(blocks(), bits, quantizer="gptq", solver="uniform", few=True),
            "bargain": lambda: self._packed(blocks(), bits, quantizer="gptq", few=True),
            "tiles": lambda: self._packed(tiles(), bits, quantizer="gptq", few=True),
            "levels": lambda: self._packed(self.game("tile", "normal"), bits, quantizer="gptq", few=True),
            "more text": lambda: self._packed(wide(), bits, quantizer="gptq"),
            "descent": lambda: descended(WIDE),
            "narrow": narrow,
            "tuned": lambda: self._tuned(narrow()),
        }
        for step in steps:
            if not any((row["seed"], row["bits"], row["step"]) == (seed, bits, step) for row in self.rows):
                self._row(bits, step, make[step])

    def _packed(
        self,
        game: BitGame,
        bits: float,
        *,
        quantizer: str = DEFAULT_QUANTIZER,
        solver: str | None = None,
        few: bool = False,
    ) -> Any:
        budget = ns.Budget.of_bits(bits, game.parameters)
        rng = np.random.default_rng(self._seed)
        solved = registry.create("solvers", solver or self.arguments.solver).solve(game, budget, rng=rng)
        calibration = None if few else self._rounding
        return ns.pack(self.source.model, solved, quantizer=quantizer, calibration=calibration, quiet=True)

    def _tuned(self, packed: Any) -> Any:
        settings = EFFORTS["best"].tuning
        assert settings is not None
        steps = settings.steps if self.arguments.steps is None else self.arguments.steps
        settings = replace(settings, steps=steps, batch=self.arguments.batch, check=self.arguments.check)
        return tune(self.source.model, packed, self._tuning_windows, settings, seed=self._seed)

    def _row(self, bits: float, step: str, make: Callable[[], Any]) -> Any:
        forget_peak()
        started, processor = time.perf_counter(), time.process_time()
        made = make()
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        packed = getattr(made, "packed", made)
        row: Row = {
            "seed": self._seed,
            "bits": bits,
            "step": step,
            "seconds": seconds,
            "processor seconds": processor,
            "peak MB": peak_memory() / 1e6,
        }
        models = {"packed": packed, "reference": self.source.model}
        found = ns.evaluate(models, self.unseen, reference=self.source.model, quiet=True)
        certificate = packed.nash_swarm_packed.allocation.certificate
        self.values["reference_loss"] = found["reference"].loss
        row |= {
            "used bits": certificate.used_bits / packed.nash_swarm_packed.parameters, "kl": found["packed"].kl,
            "loss": found["packed"].loss, "delta loss": found["packed"].loss - found["reference"].loss,
        }  # fmt: skip
        if made is not packed:
            row |= {
                "held-out KL by step of tuning": made.history, "kept step": made.step, "precision": made.precision,
                "steps": max(made.history),
            }  # fmt: skip
        self.rows.append(row)
        print(line(row), flush=True)
        write_json(self.arguments.json, self.values)
        return packed


def line(row: Row) -> str:
    """One row of the Markdown table."""
    cells = (row[name] for name in COLUMNS)
    return "| " + " | ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in cells) + " |"


def means(rows: list[Row], seeds: list[int]) -> str:
    """A Markdown table of the means over the seeds, with their standard errors."""
    lines = ["| bits | step | kl | delta loss |", "|---|---|---|---|"]
    for bits, step in dict.fromkeys((row["bits"], row["step"]) for row in rows):
        same = [row for row in rows if (row["bits"], row["step"]) == (bits, step) and row["seed"] in seeds]
        found = [np.array([row[name] for row in same]) for name in ("kl", "delta loss")]
        cells = [f"{x.mean():.4f} ± {x.std(ddof=1) / len(x) ** 0.5:.4f}" for x in found]
        lines.append(f"| {bits} | {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = _arguments()
    ladder = Ladder(arguments)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for seed in arguments.seed:
        for bits in arguments.bits:
            ladder.run(seed, bits, arguments.step)
    if len(arguments.seed) > 1:
        print("\n" + means(ladder.rows, arguments.seed))
    print(f"\nreference loss {ladder.values['reference_loss']:.4f}, {ladder.values['evaluation']}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--bits", type=float, nargs="+", required=True)
    parser.add_argument("--text", required=True, help="calibration text")
    parser.add_argument(
        "--eval-text", help="text that nothing is calibrated on; every fourth window of the other if not given"
    )
    parser.add_argument("--scope", default="model", choices=("model", "linear"))
    parser.add_argument("--labels", default="model", choices=("model", "text"), help="of the damage: see `Fisher`")
    parser.add_argument("--no-whole-windows", dest="whole_windows", action="store_false", help="likewise")
    parser.add_argument("--damping", type=float, default=0.01, help="of the damage: see `Fisher`")
    parser.add_argument("--solver", default="lagrangian")
    parser.add_argument("--step", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--granularity", default="tile", choices=("block", "tile"), help="agents from `more text` on")
    parser.add_argument(
        "--levels", default=default_levels(DEFAULT.cut.granularity), choices=LEVELS, help="from `more text` on"
    )
    parser.add_argument("--group-size", type=int, default=DEFAULT.cut.group_size, help="from `narrow` on")
    parser.add_argument("--game-windows", type=int, default=32)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--tuning-windows", type=int, default=128)
    parser.add_argument("--eval-windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, help="of tuning; those of `--effort best` if not given")
    parser.add_argument("--batch", type=int, default=2, help="windows a step of tuning")
    parser.add_argument("--check", type=int, default=25, help="steps between two looks at held-out windows")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=own_file(FIGURES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
