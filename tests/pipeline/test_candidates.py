"""Candidates are packed and tried, and the best one wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.models import VOCABULARY, tiny_llama

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.game import Budget
from nash_swarm.pipeline.candidates import try_candidates


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(tied=True)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (8, 48)).astype(np.int32)


def test_the_best_candidate_comes_first_and_baselines_play(model: Any, tokens: np.ndarray) -> None:
    game = ns.measure(model, tokens=tokens[:4], quiet=True)
    budget = Budget.of_bits(7.0, game.parameters)
    solver = registry.create("solvers", "nash")
    rounding = registry.create("quantizers", "descent")
    ranking = try_candidates(model, game, budget, solver=solver, rounding=rounding, trial=tokens[4:], quiet=True)
    kls = [candidate.kl for candidate in ranking]
    assert kls == sorted(kls)
    assert {"nash", "uniform", "quantile"} == {candidate.name for candidate in ranking}
    for candidate in ranking:
        assert candidate.allocation.certificate.used_bits <= budget.total_bits
        found = ns.evaluate({"": candidate.packed}, tokens[4:], reference=model, quiet=True)[""]
        assert found.kl == pytest.approx(candidate.kl)
