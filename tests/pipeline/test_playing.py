"""Candidates are packed and tried, and the best one wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import VOCABULARY, tiny_llama

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.game import Budget
from nash_swarm.pipeline.playing import dense_copy, measure_at, play


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
    ranking = play(model, game, budget, solver=solver, rounds=1, trial=tokens[4:], quiet=True)
    kls = [candidate.kl for candidate in ranking]
    assert kls == sorted(kls)
    assert {"nash", "uniform", "quantile"} <= {candidate.name for candidate in ranking}
    for candidate in ranking:
        assert candidate.allocation.certificate.used_bits <= budget.total_bits
        found = ns.evaluate({"": candidate.packed}, tokens[4:], reference=model, quiet=True)[""]
        assert found.kl == pytest.approx(candidate.kl)


def test_measuring_at_the_model_itself_is_the_first_measurement(model: Any, tokens: np.ndarray) -> None:
    first = ns.measure(model, tokens=tokens[:4], quiet=True)
    again = ns.measure(model, tokens=tokens[:4], point=model, quiet=True)
    assert np.array_equal(first.damage, again.damage)


def test_a_dense_copy_computes_what_the_packed_model_does(model: Any, tokens: np.ndarray) -> None:
    game = ns.measure(model, tokens=tokens[:4], quiet=True)
    packed = ns.pack(model, ns.solve(game, bits=7.0), quiet=True)
    ids = torch.from_numpy(tokens[:2].astype(np.int64))
    ns.set_activations(packed, "fp32")
    with torch.no_grad():
        torch.testing.assert_close(dense_copy(model, packed)(ids).logits, packed(ids).logits, rtol=1e-4, atol=1e-4)
    moved = measure_at(model, packed, game, quiet=True)
    assert moved.tensors == game.tensors
    assert not np.array_equal(moved.damage, game.damage)
    assert all(np.array_equal(order, game.permutations[name]) for name, order in moved.permutations.items())


def test_a_coupled_game_stays_coupled_when_it_is_measured_again(model: Any, tokens: np.ndarray) -> None:
    game, _ = ns.couple(model, ns.measure(model, tokens=tokens[:4], quiet=True), quiet=True)
    packed = ns.pack(model, ns.solve(game, bits=7.0), quiet=True)
    moved = measure_at(model, packed, game, quiet=True)
    assert moved.coupling is not None and game.coupling is not None
    assert np.array_equal(moved.coupling.graph, game.coupling.graph)
    lengths = np.square(moved.coupling.vectors).sum(-1)
    known = np.square(game.coupling.vectors).sum(-1) > 0
    assert np.allclose(lengths[known], 2 * moved.damage[known], rtol=1e-4)


def test_rounds_need_text(model: Any) -> None:
    game = ns.measure(model, text=None, damage="magnitude", quiet=True)
    with pytest.raises(UsageError, match="calibration"):
        measure_at(model, model, game, quiet=True)
