"""The report and the model card: what was left out stays, in whatever room there is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from nash_swarm.artifacts.accounting import REPORT_BYTES
from nash_swarm.artifacts.packed_model import describe
from nash_swarm.artifacts.report import card_text, report_text
from nash_swarm.caveats import counted
from nash_swarm.game import Allocation

MEASURED = {
    "text": "x.txt",
    "tokens": 34,
    "kl": 0.5,
    "top1": 0.5,
    "trial_kl": {"a": 1.0, "b": 2.0},
    "trial_tokens": 5000,
}


@pytest.mark.parametrize("lines", [1, 3, 40, 4000])
@pytest.mark.parametrize("length", [20, 300, 5000])
def test_what_was_left_out_is_shortened_and_kept(allocation: Allocation, packed: Any, lines: int, length: int) -> None:
    left_out = tuple(f"line {number} {'é' * length}" for number in range(lines))
    report = report_text(allocation, MEASURED, None, REPORT_BYTES, left_out)
    assert len(report.encode()) <= REPORT_BYTES * 3 // 5
    kept = json.loads(report)["left_out"]
    assert kept[0].startswith("line 0 ")
    shown = sum(line.startswith("line ") for line in kept)
    assert kept[shown:] == ([f"and {lines - shown} more"] if shown < lines else [])
    card = card_text(report, describe(packed), "out", "AutoModel", REPORT_BYTES - len(report.encode()))
    assert len((report + card).encode()) <= REPORT_BYTES
    assert "import nash_swarm" in card


def test_the_text_that_was_calibrated_on_stays_known(allocation: Allocation) -> None:
    facts = {"text": "x.txt", "text_digest": "0123", "model": "m", **{f"fact {k}": "y" * 90 for k in range(15)}}
    played = replace(allocation, provenance=facts)
    whole = json.loads(report_text(played, MEASURED, None, 10**6))
    assert "left_out" not in whole and whole["game"] == facts
    small = json.loads(report_text(played, MEASURED, None, REPORT_BYTES))
    assert small["game"] == {"text": "x.txt", "text_digest": "0123", "model": "m"}
    assert small["measured"] == whole["measured"] and "hyperparameters" not in small


def test_few_tokens_are_told() -> None:
    assert counted(8176, "x.txt") == "8,176 tokens of x.txt"
    assert counted(34) == "34 tokens only: too few to judge"
    assert counted(1999, "x.txt", "held-out tokens") == "1,999 held-out tokens of x.txt only: too few to judge"
    assert "too few" not in counted(2000)


def test_the_card_says_how_many_tokens(allocation: Allocation, packed: Any) -> None:
    card = card_text(report_text(allocation, MEASURED, None, REPORT_BYTES), describe(packed), "out", "AutoModel", 2000)
    assert "Measured on 34 held-out tokens of x.txt only: too few to judge:" in card
    assert "KL on held-out calibration text (5,000 tokens) at the same budget" in card
