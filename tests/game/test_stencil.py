"""Coupling along rows against stored edges (a `Coupling` of rank 1) and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.games import make_game
from support.stencils import as_coupling, every_profile, sample_stencil_game

from nash_swarm.errors import DataError
from nash_swarm.game import BitGame, Budget, spans, stencil
from nash_swarm.game.rows import best_profile, certify_stencil, effective, regret, total
from nash_swarm.game.stencil import Stencil, StencilGame, neighbour_correlation
from nash_swarm.testing import oracles
from nash_swarm.testing.games import couple

seeds = given(seed=st.integers(0, 2**32))


@seeds
def test_costs_and_gains_are_those_of_stored_edges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_stencil_game(rng, most_agents=40)
    edges = as_coupling(game)
    choices = rng.integers(0, len(game.game.strategies), game.game.agents).astype(np.uint8)
    size = float(game.game.damage.max()) * game.game.agents
    point = total(game, choices)
    assert point.damage == pytest.approx(oracles.total_damage(edges, choices), abs=1e-6 * size)
    assert point.damage >= -1e-12 * size
    assert point.memory == game.game.used_bits(choices) - game.game.fixed_bits
    _, saved = oracles.changes(edges, choices)
    table = np.concatenate(game.over_rows(lambda part: effective(part, choices[part.start : part.stop]).damage))
    found = table[np.arange(len(choices)), choices][:, None] - table
    np.testing.assert_allclose(found, saved, atol=1e-6 * size)
    price = float(rng.uniform(0, size / game.game.agents))
    assert regret(game, choices, price) == pytest.approx(
        oracles.unilateral_regret(edges, choices, price), abs=1e-6 * size
    )


@seeds
def test_the_best_profile_is_the_one_that_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_stencil_game(rng, most_agents=6)
    price = float(game.game.damage.mean() * rng.uniform(0, 0.5))
    choices = np.empty(game.game.agents, np.uint8)
    found = best_profile(game, price, choices)
    assert regret(game, choices, price) == 0
    _, costs, bits = every_profile(game)
    assert found.value(price, 0) == pytest.approx((costs + price * bits).min(), rel=1e-12, abs=1e-12)


@seeds
def test_the_lower_bound_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_stencil_game(rng, most_agents=5)
    plain = game.game
    budget = Budget(int(rng.integers(plain.smallest_bits(), plain.largest_bits() + 1)), "some")
    choices = np.zeros(plain.agents, np.uint8)
    _, costs, taken = every_profile(game)
    least = float(costs[taken <= game.game.capacity(budget)].min())
    for price in (0.0, float(plain.damage.mean() * rng.uniform(0, 0.5)), 1e6):
        told = certify_stencil(game, budget, choices, price)
        assert 0 <= told.lower_bound <= least * (1 + 1e-12) + 1e-300
        assert told.predicted_damage == pytest.approx(total(game, choices).damage)
        slack = budget.total_bits - plain.used_bits(choices)
        truth = oracles.exchange_regret(as_coupling(game), choices, slack)
        assert told.exchange_regret <= truth + 1e-6 * float(plain.damage.max())
        bits, saved = oracles.changes(as_coupling(game), choices)
        alone = saved[bits <= slack].max(initial=0.0)
        assert told.exchange_regret >= alone - 1e-6 * float(plain.damage.max())


def test_results_do_not_depend_on_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    game = sample_stencil_game(np.random.default_rng(5), most_agents=400)
    choices, other = (np.empty(game.game.agents, np.uint8) for _ in range(2))
    price = float(game.game.damage.mean() / 3)
    whole = best_profile(game, price, choices)
    monkeypatch.setattr(stencil, "SPAN", 7)
    monkeypatch.setattr(spans, "SPAN", 7)
    assert len(game.patches()) > 3
    parts = best_profile(game, price, other)
    assert np.array_equal(choices, other)
    assert parts.memory == whole.memory and parts.damage == pytest.approx(whole.damage, rel=1e-12)


def test_correlation_of_neighbours_is_that_of_their_inputs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 5)) @ np.array(
        [[1, 0.3, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, -5, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    )
    found = neighbour_correlation(x.T @ x)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(np.corrcoef(x[:, 0], x[:, 1])[0, 1], abs=0.01)
    assert found[2] == -0.5  # clipped
    assert found[3] == found[4] == 0  # a dead input, and the last column


def test_larger_correlations_could_repair_damage_and_are_refused() -> None:
    fine = Stencil(np.zeros(6, np.uint8), ((2, 3),), np.array([0.5, -0.5, 0], np.float32))
    for wrong in (np.array([0.5, 0.51, 0]), np.array([0.1, np.nan, 0])):
        with pytest.raises(DataError, match=r"within \+-0.5"):
            replace(fine, correlation=wrong.astype(np.float32))
    with pytest.raises(DataError, match="last column"):
        replace(fine, correlation=np.full(3, 0.1, np.float32))
    with pytest.raises(DataError, match="signs"):
        replace(fine, signs=np.zeros(5, np.uint8))
    with pytest.raises(DataError, match="correlation must be float32"):
        replace(fine, correlation=np.zeros(2, np.float32))
    with pytest.raises(DataError, match="rows and columns"):
        replace(fine, shapes=((2, 0),))


def test_a_stencil_fits_its_game_or_is_refused() -> None:
    game = make_game(6, shared=True)
    fine = Stencil(np.zeros(6, np.uint8), ((2, 3),), np.zeros(3, np.float32))
    StencilGame(game, fine)
    with pytest.raises(DataError, match="agents"):
        StencilGame(make_game(7, shared=True), fine)
    with pytest.raises(DataError, match="one row of memory"):
        StencilGame(make_game(6), fine)
    with pytest.raises(DataError, match="not by both"):
        StencilGame(couple(np.random.default_rng(0), game, communities=1, rank=1), fine)
    many = BitGame(tuple(range(2, 11)), np.ones((6, 9), np.float32), np.broadcast_to(np.arange(2, 11), (6, 9)))
    with pytest.raises(DataError, match="at most 8"):
        StencilGame(many, fine)
    with pytest.raises(DataError, match="allowed"):
        certify_stencil(StencilGame(game, fine), Budget(1012, "bits"), np.full(6, 5, np.uint8), 0.0)
    with pytest.raises(DataError, match="price"):
        certify_stencil(StencilGame(game, fine), Budget(9999, "bits"), np.full(6, 5, np.uint8), -1.0)
    with pytest.raises(DataError, match="indices"):
        certify_stencil(StencilGame(game, fine), Budget(9999, "bits"), np.full(6, 6, np.uint8), 0.0)
