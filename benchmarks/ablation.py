"""Which part of the system brings what: every solver, with and without coupling.

Usage::

    python benchmarks/ablation.py MODEL --bits 3.0 --scope linear --text CALIBRATION [--eval-text HELD_OUT] --json FILE

Every solver allocates the same budget on the game without and with coupling. Each allocation is packed. The table has
the KL to the original model on text that nothing has seen, and on trial windows of the calibration text.

Solvers that ignore coupling play once. An allocation that gives another width to at most `--same` of the weights of an
earlier one of the same game is not packed again: its row names the solver whose figures it shares. `--json FILE` is
rewritten after every play, and a run that finds it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import FIGURES, origin, own_file, take_up, write_json

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.caveats import counted
from nash_swarm.damage.fisher import Fisher
from nash_swarm.models.source import load_source
from nash_swarm.pipeline.candidates import trial_windows, try_candidates
from nash_swarm.pipeline.packing import finish
from nash_swarm.quantizers.formats.native.layout import TensorLayout

SOLVERS = ("lagrangian", "nash", "nash-swarm", "greedy", "dp", "milp", "swarm", "annealing", "quantile", "uniform")
COLUMNS = ("solver", "coupling", "bits", "predicted", "trial_kl", "kl", "loss", "played_as")

Row = dict[str, Any]


class Ablation:
    """One model, one text, one budget; plays that are done are not repeated."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.source, text = load_source(arguments.model), load_text(arguments.text)
        self.budget_bits = arguments.bits
        rng = np.random.default_rng(arguments.seed)
        other = load_text(arguments.eval_text) if arguments.eval_text else text
        held_out = cut_windows(
            other, self.source.tokenizer, length=arguments.length, model=self.source.model,
            part="held-out" if other is text else "all",
        )  # fmt: skip
        self.windows = choose_windows(held_out, arguments.eval_windows, rng)
        damage = Fisher(labels=arguments.labels)
        game = ns.measure(
            self.source.model, self.source.tokenizer, damage=damage, text=text, scope=arguments.scope,
            windows=arguments.windows, length=arguments.length, granularity=arguments.granularity, seed=arguments.seed,
            name=self.source.name, quiet=True,
        )  # fmt: skip
        self.games = {"off": game}
        if "on" in arguments.coupling:
            self.games["on"] = ns.couple(self.source.model, game, seed=arguments.seed, quiet=True)[0]
        self.trial = trial_windows(self.source.model, game, text, self.source.tokenizer, rng)
        self.values: dict[str, Any] = {
            **origin("torch", "transformers", "numpy"),
            "model": self.source.name, "note": self.source.note, "seed": arguments.seed,
            "damage": asdict(damage), "activations": arguments.activations,
            "calibration": f"{text.source}, {game.calibration.tokens.size} tokens" if game.calibration else "",
            "evaluation": counted(self.windows.size, other.source),
            "coupling": {name: game.provenance.get("coupling") for name, game in self.games.items()}.get("on"),
            "reference_loss": None, "rows": [],
        }  # fmt: skip
        take_up(arguments.json, self.values)
        self.solved: dict[str, tuple[str, ns.Allocation]] = {}

    @property
    def rows(self) -> list[Row]:
        return self.values["rows"]  # type: ignore[no-any-return]

    def run(self, solvers: list[str]) -> None:
        for coupling, game in self.games.items():
            for name in solvers:
                solver = registry.create("solvers", name)
                if coupling == "on" and solver.separable:
                    self._share(name, coupling, name, "off")
                    continue
                allocation = solver.solve(game, ns.Budget.of_bits(self.budget_bits, game.parameters),
                                          rng=np.random.default_rng(self.arguments.seed))  # fmt: skip
                twin = self._twin(allocation, game.tensors)
                if twin is not None:
                    self._share(name, coupling, *twin.split(" | "))
                    continue
                self.solved[f"{name} | {coupling}"] = (name, allocation)
                if not self._find(name, coupling):
                    self._play(name, coupling, game)

    def _play(self, name: str, coupling: str, game: ns.BitGame) -> None:
        started = time.perf_counter()
        (kept,) = try_candidates(
            self.source.model, game, ns.Budget.of_bits(self.budget_bits, game.parameters),
            solver=registry.create("solvers", name), rounding=registry.create("quantizers", self.arguments.quantizer),
            baselines=(), trial=self.trial, seed=self.arguments.seed, quiet=True,
        )  # fmt: skip
        finish(kept.packed)
        ns.set_activations(kept.packed, self.arguments.activations)
        models = {"reference": self.source.model, "packed": kept.packed}
        found = ns.evaluate(models, self.windows, reference=self.source.model, quiet=True)
        self.values["reference_loss"] = found["reference"].loss
        certificate = kept.allocation.certificate
        self._add({
            "solver": name, "coupling": coupling, "bits": certificate.used_bits / game.parameters,
            "predicted": certificate.predicted_damage, "trial_kl": kept.kl, "kl": found["packed"].kl,
            "loss": found["packed"].loss, "played_as": kept.name, "seconds": time.perf_counter() - started,
        })  # fmt: skip

    def _twin(self, allocation: ns.Allocation, tensors: tuple[TensorLayout, ...]) -> str | None:
        weights = weights_per_agent(tensors)
        for key, (_, other) in self.solved.items():
            if weights[other.choices != allocation.choices].sum() <= self.arguments.same * weights.sum():
                return key
        return None

    def _share(self, name: str, coupling: str, other: str, of: str) -> None:
        for row in self._find(other, of):
            if not self._find(name, coupling):
                self._add({**row, "solver": name, "coupling": coupling, "played_as": f"{other}, coupling {of}"})

    def _find(self, name: str, coupling: str) -> list[Row]:
        return [row for row in self.rows if (row["solver"], row["coupling"]) == (name, coupling)]

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        print(line(row), flush=True)
        write_json(self.arguments.json, self.values)


def weights_per_agent(tensors: tuple[TensorLayout, ...]) -> npt.NDArray[np.float64]:
    """Weights of every agent, padding included."""
    counts = [
        tensor.gather(np.ones((tensor.row_tiles, tensor.groups)) * (16 * tensor.group_size)) for tensor in tensors
    ]
    return np.concatenate(counts)


def line(row: Row) -> str:
    """One row of the Markdown table."""
    cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in (row[name] for name in COLUMNS)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    arguments = _arguments()
    started = time.perf_counter()
    ablation = Ablation(arguments)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    ablation.run(arguments.solvers.split(","))
    best = min(ablation.rows, key=lambda row: row["kl"])
    print(f"\nreference loss {ablation.values['reference_loss']:.4f}; best row: {line(best)}")
    print(f"kl and loss on {ablation.values['evaluation']}")
    print(f"{time.perf_counter() - started:.0f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--bits", type=float, required=True)
    parser.add_argument("--text", required=True, help="calibration and trial text")
    parser.add_argument(
        "--eval-text", help="text that nothing is calibrated on; held-out windows of --text if not given"
    )
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument("--scope", default="model", choices=("model", "linear"))
    parser.add_argument("--granularity", default="block", choices=("layer", "block", "tile"))
    parser.add_argument("--labels", default="model", choices=("model", "text"), help="of the damage: see `Fisher`")
    parser.add_argument("--quantizer", default="gptq")
    parser.add_argument("--activations", default="int8", help="of packed models on the other text: int8, int16 or fp32")
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    parser.add_argument("--coupling", nargs="+", default=["off", "on"], choices=("off", "on"))
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--eval-windows", type=int, default=16)
    parser.add_argument("--same", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=own_file(FIGURES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
