"""How well separable and coupled damage predict the real loss of random allocations.

Usage::

    python benchmarks/coupling.py MODEL --text FILE [--allocations 32] [--json FILE]

MODEL is anything `nash-swarm compress` takes. The game is measured on the calibration part of the text; each random
allocation (mean widths spread over the range between --low and --high bits per parameter) is packed and its loss taken
on held-out windows. The table has, for the separable and the coupled prediction, Spearman's rank correlation with the
real rise of the loss, the slope and residual of the log-log calibration line, and the median of real over predicted.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
from reporting import new_file, origin, write_json
from scipy.stats import linregress, spearmanr

import nash_swarm as ns
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.caveats import counted
from nash_swarm.damage.coupling import couple, random_profile
from nash_swarm.damage.fisher import Fisher
from nash_swarm.models.source import load_source

_AT_ONCE = 4
"""Packed models that are evaluated beside one run of the reference."""


def main() -> None:
    arguments = _arguments()
    started = time.perf_counter()
    rng = np.random.default_rng(arguments.seed)
    source, text = load_source(arguments.model), load_text(arguments.text)
    damage = Fisher(labels=arguments.labels)
    game = ns.measure(
        source.model, source.tokenizer, damage=damage, text=arguments.text, scope=arguments.scope,
        windows=arguments.windows, length=arguments.length, seed=arguments.seed, name=source.name,
    )  # fmt: skip
    coupled, shrinkage = couple(source.model, game, seed=arguments.seed)
    held_out = cut_windows(text, source.tokenizer, length=arguments.length, part="held-out", model=source.model)
    windows = choose_windows(held_out, arguments.eval_windows, rng)
    allocations = _random_allocations(game, arguments, rng)
    rows: list[dict[str, float]] = []
    assert game.calibration is not None
    calibration = dataclasses.replace(game.calibration, tokens=game.calibration.tokens[: arguments.pack_windows])
    for start in range(0, len(allocations), _AT_ONCE):
        part = allocations[start : start + _AT_ONCE]
        how = {"quantizer": arguments.quantizer, "calibration": calibration, "quiet": True}
        models = {str(k): ns.pack(source.model, each, **how) for k, each in enumerate(part)}
        models["reference"] = source.model
        found = ns.evaluate(models, windows, reference=source.model, quiet=True)
        for k, allocation in enumerate(part):
            row = {
                "bits": game.used_bits(allocation.choices) / game.parameters,
                "separable": game.total_damage(allocation.choices),
                "coupled": coupled.total_damage(allocation.choices),
                "loss_rise": found[str(k)].loss - found["reference"].loss,
                "kl": found[str(k)].kl or 0.0,
            }
            rows.append(row)
            print(f"{len(rows):3d} " + " ".join(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
    table = {name: _fit(rows, name, arguments.target) for name in ("separable", "coupled")}
    print(f"\nagainst {arguments.target} on {counted(windows.size, text.source)}:")
    print("| prediction | spearman | slope | residual | ratio |\n|---|---|---|---|---|")
    for name, fit in table.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in fit.values()) + " |")
    values = {
        **origin("numpy"),
        "model": source.name, "note": source.note, "text": text.source, "tokens": int(windows.size),
        "damage": dataclasses.asdict(damage),
        "seconds": time.perf_counter() - started,
        "shrinkage": {**dataclasses.asdict(shrinkage), "reach": str(shrinkage.reach)},
        "table": table, "allocations": rows,
    }  # fmt: skip
    write_json(arguments.json, values)


def _random_allocations(
    game: ns.BitGame, arguments: argparse.Namespace, rng: np.random.Generator
) -> list[ns.Allocation]:
    """Random profiles between the two budgets, as allocations."""
    found: list[ns.Allocation] = []
    while len(found) < arguments.allocations:
        choices = random_profile(game, rng)
        if not arguments.low <= game.used_bits(choices) / game.parameters <= arguments.high:
            continue
        budget = ns.Budget(game.used_bits(choices), "random")
        certificate = ns.Certificate(budget.total_bits, budget.total_bits, 0, 0, 0, 0, 0)
        allocation = ns.Allocation.of(game, budget, choices, certificate, solver="random", hyperparameters={})
        found.append(allocation)
    return found


def _fit(rows: list[dict[str, float]], name: str, target: str) -> dict[str, float]:
    predicted = np.array([row[name] for row in rows])
    real = np.array([row[target] for row in rows])
    usable = (predicted > 0) & (real > 0)
    line = linregress(np.log(predicted[usable]), np.log(real[usable]))
    left = np.log(real[usable]) - line.intercept - line.slope * np.log(predicted[usable])
    return {
        "spearman": float(spearmanr(predicted, real).statistic),
        "slope": float(line.slope),
        "residual": float(left.std()),
        "ratio": float(np.median(real / predicted)),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--scope", default="model", choices=("model", "linear"))
    parser.add_argument("--labels", default="model", choices=("model", "text"), help="of the damage: see `Fisher`")
    parser.add_argument("--quantizer", default="gptq")
    parser.add_argument("--allocations", type=int, default=32)
    parser.add_argument("--low", type=float, default=2.5)
    parser.add_argument("--high", type=float, default=5.0)
    parser.add_argument("--length", type=int, default=512, help="tokens in a window")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--pack-windows", type=int, default=16, help="of the calibration windows, for rounding")
    parser.add_argument("--eval-windows", type=int, default=8)
    parser.add_argument("--target", default="loss_rise", choices=("loss_rise", "kl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=new_file)
    return parser.parse_args()


if __name__ == "__main__":
    main()
