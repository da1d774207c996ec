"""The two small files beside the weights: what was done and measured, for machines and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import nash_swarm
from nash_swarm.files.packed_config import PackedConfig
from nash_swarm.game.allocation import Allocation

_LONGEST = 100


def report_text(
    allocation: Allocation | None, measured: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None, limit: int
) -> str:
    """The text of `nash_swarm.json`, at most three fifths of `limit` bytes; the least needed facts go first."""
    values: dict[str, Any] = dict(earlier or {})
    if allocation is not None:
        values = {
            "version": nash_swarm.__version__,
            "solver": allocation.solver,
            "hyperparameters": dict(allocation.hyperparameters),
            "budget": allocation.budget.label,
            "certificate": {k: _rounded(v) for k, v in asdict(allocation.certificate).items()},
            "agents_by_width": allocation.histogram(),
            "game": {k: _rounded(v) for k, v in allocation.provenance.items() if k != "model_digest"},
        }
        if digest := allocation.provenance.get("model_digest"):
            values["source"] = {"name": _rounded(str(allocation.provenance.get("model", ""))), "digest": digest}
    if measured is not None:
        values["measured"] = {k: _rounded(v) for k, v in measured.items()}
    for optional in ("", "hyperparameters", "game", "agents_by_width", "measured"):
        values.pop(optional, None)
        text = json.dumps(values) + "\n"
        if len(text.encode()) <= limit * 3 // 5:
            break
    return text


def card_text(report: str, config: PackedConfig, name: str, loader: str) -> str:
    """The model card: how to load the model, what was measured on what text, and the certificate.

    Args:
        report: the text of `nash_swarm.json`.
        config: the packed model's.
        name: of its folder.
        loader: the class of transformers that loads it.
    """
    values = json.loads(report)
    game, measured, proof = (values.get(key, {}) for key in ("game", "measured", "certificate"))
    lines = [
        "---",
        "library_name: nash-swarm",
        "---",
        f"# {name[:60]}",
        "",
        f"{game.get('model', 'A language model')} packed by nash-swarm: solver `{values.get('solver', '?')}`, "
        f"budget {values.get('budget', '?')}, widths {list(config.strategies)}, scope {config.scope}.",
        "",
        "```python",
        "import nash_swarm  # first: without it transformers leaves the weights random",
        f'model = nash_swarm.load("{name[:60]}")  # or {loader}.from_pretrained',
        "```",
        "",
    ]
    if measured:
        found = (
            f"cosine of its embeddings to the original's {measured['cosine']}"
            if "cosine" in measured
            else f"perplexity {measured.get('perplexity')} (original {measured.get('reference_perplexity')}), "
            f"KL to the original {measured.get('kl')} nats per token, top-1 agreement {measured.get('top1')}"
        )
        lines += [f"Measured on {measured.get('tokens')} held-out tokens of {measured.get('text')}: {found}.", ""]
    if len(trial := measured.get("trial_kl", {})) > 1:
        ranking = ", ".join(f"{name} {kl}" for name, kl in trial.items())
        divergence = "1 - cosine" if "cosine" in measured else "KL"
        lines += [f"{divergence} on held-out calibration text at the same budget, the best kept: {ranking}.", ""]
    if proof:
        lines += [
            f"Certificate: {proof.get('used_bits')} of {proof.get('budget_bits')} bits used (tokenizer files are not "
            f"counted), unilateral regret {proof.get('unilateral_regret')}, exchange regret "
            f"{proof.get('exchange_regret')}, predicted damage {proof.get('predicted_damage')}, "
            f"lower bound {proof.get('lower_bound')}.",
            "",
        ]
    return "\n".join(lines)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
