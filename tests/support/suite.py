"""Benchmark rows to write, read and show."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from nash_swarm.names import OUTSIDE
from nash_swarm.suite.heatmap import HeatMap, Spot
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row


def a_row(**changes: Any) -> Row:
    """A row of plausible figures with these changes."""
    values: dict[str, Any] = {
        "protocol": "nash-swarm", "model": "tiny", "method": "uniform", "quantizer": "gptq", "damage": "fisher",
        "granularity": "block", "activations": "int8", "bits": 3.0, "seed": 0, "parameters": 1000, "bytes": 374,
        "bits_per_parameter": 2.992, "compression": 0.9065, "tokens": 511, "loss": 3.6, "delta_loss": 0.1,
        "perplexity": 36.6, "kl": 0.12, "top1": 0.8, "reference_loss": 3.5, "reference_perplexity": 33.1,
        "agents": 20, "predicted_damage": 0.08, "lower_bound": 0.079, "gap": 0.0127, "price": 1e-6,
        "unilateral_regret": 0.0, "exchange_regret": 1e-9, "fill": 0.9997, "solve_seconds": 0.01,
        "pack_seconds": 1.0, "evaluate_seconds": 0.5, "text": "corpus.txt", "text_digest": "00ff",
        "calibration_tokens": 1024, "eval_text": "corpus.txt", "eval_text_digest": "00ff", "versions": "nash-swarm 0",
        "key": "0123456789abcdef",
    }  # fmt: skip
    return Row(**values | changes)


def some_results() -> Results:
    """Two solvers at two budgets, with traces, maps and a peer."""
    rows, details, maps = [], {}, {}
    for number, (method, bits) in enumerate(product(("nash", "uniform"), (3.0, 4.0))):
        key, loss = f"cell{number}", 3.5 + 2.0 ** -(bits + (method == "nash"))
        rows.append(
            a_row(
                method=method,
                bits=bits,
                key=key,
                bytes=int(bits * 124),
                loss=loss,
                kl=loss - 3.5,
                delta_loss=loss - 3.5,
                perplexity=math.exp(loss),
                shares="" if number else "uniform",
            )
        )
        trace = [{"iteration": i, "price": 2.0**-i, "unilateral_regret": 3.0**-i, "damage": 1.0} for i in range(5)]
        details[key] = {"trace": trace, "allocation": f"map{number}"}
        spots = [Spot("embed", OUTSIDE, "embed", bits, 100, {3: 1.0}, 0.5)]
        spots += [
            Spot(f"layers.{layer}.{module}", str(layer), module, 2.0 + layer + number / 8, 300, {2: 0.25, 8: 0.75}, 0.1)
            for layer in range(3)
            for module in ("attn.q", "mlp.up")
        ]
        maps[f"map{number}"] = HeatMap(tuple(spots)).to_dict()
    peer = {"method": "peer", "settings": "w3", "model": "", "bytes": 400, "bits": 3.2, "kl": 0.3, "perplexity": 50.0}
    return Results(tuple(rows), "nash-swarm bench tiny", details, maps, peers=(peer,), facts={"seconds": 2.0})
