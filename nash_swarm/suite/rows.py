"""One line of a benchmark's results: what was run, what it takes on disk, and what the model has lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

PROTOCOL = "nash-swarm"
"""Sizes are bytes on disk, and losses are of windows without padding."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One benchmark cell; the fields are the columns of `results.csv`, in this order.

    `None` (an empty cell of the table) is what a protocol does not measure.

    Attributes:
        protocol: how sizes are counted and losses measured, see `PROTOCOL` and `benchmarks/original/`.
        model: name of the model.
        method: who allocated: a solver's name, or what another protocol calls its method.
        quantizer, damage, granularity, scope, activations, seed: see `nash-swarm compress`; empty where a protocol has
            no such choice.
        bits: budget asked for, bits per parameter.
        parameters: unique parameters in scope.
        bytes: bytes that the budget covers; for scope `model` those of the files on disk.
        bits_per_parameter: `bytes` * 8 / `parameters`.
        compression: share of the fp32 size that is saved, 1 - `bytes` / (4 * `parameters`).
        tokens: predicted tokens that the losses are means over.
        loss: nats per token.
        delta_loss: `loss` less `reference_loss`.
        perplexity: exp(loss).
        kl: KL(original || packed), nats per token.
        top1: share of tokens on which both find the same token likeliest.
        reference_loss, reference_perplexity: of the original on the same tokens.
        agents: number of agents.
        predicted_damage, lower_bound, gap, price, unilateral_regret, exchange_regret, fill: the certificate.
        solve_seconds, pack_seconds, evaluate_seconds: wall time; with other jobs at work, of a busy machine.
        shares: the method whose packing this row shares, because both chose the same allocation.
        text, text_digest, calibration_tokens: what was calibrated on.
        eval_text, eval_text_digest: what the losses are of.
        note: what a reader of the figures must know.
        versions: of the libraries that computed the row.
        key: name of the cell's file.
    """

    protocol: str
    model: str
    method: str
    quantizer: str = ""
    damage: str = ""
    granularity: str = ""
    scope: str = "model"
    activations: str = ""
    bits: float
    seed: int
    parameters: int
    bytes: int
    bits_per_parameter: float
    compression: float
    tokens: int
    loss: float
    delta_loss: float
    perplexity: float
    kl: float | None = None
    top1: float | None = None
    reference_loss: float
    reference_perplexity: float
    agents: int | None = None
    predicted_damage: float | None = None
    lower_bound: float | None = None
    gap: float | None = None
    price: float | None = None
    unilateral_regret: float | None = None
    exchange_regret: float | None = None
    fill: float | None = None
    solve_seconds: float | None = None
    pack_seconds: float | None = None
    evaluate_seconds: float | None = None
    shares: str = ""
    text: str
    text_digest: str
    calibration_tokens: int = 0
    eval_text: str
    eval_text_digest: str
    note: str = ""
    versions: str = ""
    key: str = ""


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))
"""The columns of `results.csv`."""


def size_figures(parameters: int, size: int) -> dict[str, Any]:
    """The columns of a row that follow from its size in bytes."""
    return {
        "parameters": parameters,
        "bytes": size,
        "bits_per_parameter": size * 8 / parameters,
        "compression": 1 - size / (4 * parameters),
    }


def loss_figures(loss: float, reference_loss: float) -> dict[str, Any]:
    """The columns of a row that follow from its loss and that of the original, both in nats per token."""
    return {
        "loss": loss,
        "delta_loss": loss - reference_loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "reference_loss": reference_loss,
        "reference_perplexity": math.exp(min(reference_loss, 700.0)),
    }


_TRAITS = ("protocol", "quantizer", "damage", "granularity", "scope", "activations", "seed")


def labels(rows: Iterable[Row]) -> list[str]:
    """What to call each row's method where models and budgets are told apart otherwise.

    It is the method, and whatever else the rows differ in: ``nash``, or ``nash, rtn`` beside ``nash, gptq``.
    """
    rows = list(rows)
    varying = [trait for trait in _TRAITS if len({getattr(row, trait) for row in rows}) > 1]
    return [
        ", ".join([row.method, *(str(getattr(row, trait)) for trait in varying if getattr(row, trait) != "")])
        for row in rows
    ]
