"""The two small files beside the weights: what was done and measured, for machines and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nash_swarm.artifacts.packed_config import PackedConfig
from nash_swarm.caveats import counted
from nash_swarm.game.allocation import Allocation
from nash_swarm.names import VERSION

_LONGEST = 100
_LONGEST_LINE, _LEFT_OUT_BYTES, _LEFT_OUT_CARD_BYTES = 160, 480, 240
_GAME_KEPT = ("model", "text", "text_digest")
_DROPPED = ("", "hyperparameters", "game", "agents_by_width", "measured", "left_out")
"""What a report does without when there is no room, in this order; `left_out` has been shortened before, and of the
game the text stays, because evaluations must know what was calibrated on."""


def report_text(
    allocation: Allocation | None,
    measured: Mapping[str, Any] | None,
    earlier: Mapping[str, Any] | None,
    limit: int,
    left_out: Sequence[str] = (),
) -> str:
    """The text of `nash_swarm.json`, at most three fifths of `limit` bytes; the least needed facts go first."""
    values: dict[str, Any] = dict(earlier or {})
    if allocation is not None:
        values = {
            "version": VERSION,
            "solver": allocation.solver,
            "hyperparameters": dict(allocation.hyperparameters),
            "budget": allocation.budget.label,
            "certificate": {k: _rounded(v) for k, v in asdict(allocation.certificate).items()},
            "agents_by_width": allocation.histogram(),
            "game": {k: _rounded(v) for k, v in allocation.provenance.items() if k not in ("model_digest", "left_out")},
        }
        if digest := allocation.provenance.get("model_digest"):
            values["source"] = {"name": _rounded(str(allocation.provenance.get("model", ""))), "digest": digest}
    if left_out:
        values["left_out"] = _shortened(left_out, _LEFT_OUT_BYTES)
    if measured is not None:
        values["measured"] = {k: _rounded(v) for k, v in measured.items()}
    for optional in _DROPPED:
        dropped = values.pop(optional, None)
        if optional == "game" and isinstance(dropped, Mapping):
            values["game"] = {name: dropped[name] for name in _GAME_KEPT if name in dropped}
        text = json.dumps(values) + "\n"
        if len(text.encode()) <= limit * 3 // 5:
            break
    return text


def _shortened(lines: Sequence[str], room: int) -> list[str]:
    """The first of the lines, none of them long, and how many more there are."""
    short = [line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 3]}..." for line in lines]
    found: list[str] = []
    for line in short:
        room -= len(json.dumps(line))
        if room < 0 and found:
            return [*found, f"and {len(short) - len(found)} more"]
        found.append(line)
    return found


def card_text(report: str, config: PackedConfig, name: str, loader: str, limit: int) -> str:
    """The model card: how to load the model, what was measured on what text, and the certificate.

    Args:
        report: the text of `nash_swarm.json`.
        config: the packed model's.
        name: of its folder.
        loader: the class of transformers that loads it.
        limit: bytes; paragraphs that do not fit are left away.
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
    parts: list[str] = []
    if values.get("left_out"):
        parts.append(f"Left out: {'; '.join(_shortened(values['left_out'], _LEFT_OUT_CARD_BYTES))}.")
    if measured:
        found = (
            f"cosine of its embeddings to the original's {measured['cosine']}"
            if "cosine" in measured
            else f"perplexity {measured.get('perplexity')} (original {measured.get('reference_perplexity')}), "
            f"KL to the original {measured.get('kl')} nats per token, top-1 agreement {measured.get('top1')}"
        )
        of = measured.get("text", "")
        on = counted(measured["tokens"], of, "held-out tokens") if "tokens" in measured else of
        parts.append(f"Measured on {on}: {found}.")
    if len(trial := measured.get("trial_kl", {})) > 1:
        ranking = ", ".join(f"{name} {kl}" for name, kl in trial.items())
        divergence = "1 - cosine" if "cosine" in measured else "KL"
        on = f" ({counted(measured['trial_tokens'])})" if "trial_tokens" in measured else ""
        parts.append(f"{divergence} on held-out calibration text{on} at the same budget, the best kept: {ranking}.")
    if proof:
        parts.append(
            f"Certificate: {proof.get('used_bits')} of {proof.get('budget_bits')} bits used (tokenizer files are not "
            f"counted), unilateral regret {proof.get('unilateral_regret')}, exchange regret "
            f"{proof.get('exchange_regret')}, predicted damage {proof.get('predicted_damage')}, "
            f"lower bound {proof.get('lower_bound')}."
        )
    text = "\n".join(lines)
    for part in parts:
        longer = f"{text}\n{part}\n"
        text = longer if len(longer.encode()) <= limit else text
    return text


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
