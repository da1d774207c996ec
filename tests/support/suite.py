"""Benchmark rows to write, read and show."""

from __future__ import annotations

from typing import Any

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
