"""Coupling along rows against stored edges (a `Coupling` of rank 1) and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.games import make_game
from support.stencils import as_coupling, coupled_rows, every_profile

from nash_swarm import sharing
from nash_swarm.damage.neighbours import chain_order, neighbour_correlation
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game import BitGame, Budget, Stencil, rows
from nash_swarm.game.arena import Arena
from nash_swarm.game.certificate import certify
from nash_swarm.game.chains import best_profile
from nash_swarm.game.reduction import reduce_game
from nash_swarm.game.row_exchange import best_row_exchange
from nash_swarm.game.rows import Rows
from nash_swarm.testing import oracles
from nash_swarm.testing.games import sample_row_game

seeds = given(seed=st.integers(0, 2**32))


@seeds
def test_costs_and_gains_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng, most_agents=40)
    seen = Rows.of(game)
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    size = float(game.damage.max()) * game.agents
    point, truth = seen.total(choices), oracles.total_damage(game, choices)
    assert point.damage == pytest.approx(truth, abs=1e-12 * size)
    assert game.total_damage(choices) == pytest.approx(truth, abs=1e-12 * size)
    assert point.damage >= -1e-12 * size
    assert point.memory == game.used_bits(choices) - game.fixed_bits
    _, saved = oracles.changes(game, choices)
    table = seen.effective(choices).damage
    np.testing.assert_allclose(table[np.arange(len(choices)), choices][:, None] - table, saved, atol=1e-12 * size)
    price = float(rng.uniform(0, size / game.agents))
    truth = oracles.unilateral_regret(game, choices, price)
    assert seen.regret(choices, price) == pytest.approx(truth, abs=1e-11 * size)
    # and of edges that are stored
    assert point.damage == pytest.approx(as_coupling(game).total_damage(choices), abs=1e-6 * size)


@seeds
def test_the_best_profile_is_the_one_that_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng, most_agents=6)
    price = float(game.damage.mean() * rng.uniform(0, 0.5))
    choices = np.empty(game.agents, np.uint8)
    found = best_profile(Rows.of(game), price, choices)
    assert Rows.of(game).regret(choices, price) == 0
    _, costs, bits = every_profile(game)
    smallest = int(game.memory[:, 0].sum())
    assert found.value(price, smallest) == pytest.approx(
        (costs + price * (bits - smallest)).min(), rel=1e-11, abs=1e-11
    )


@seeds
def test_the_lower_bound_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng, most_agents=5)
    budget = Budget(int(rng.integers(game.smallest_bits(), game.largest_bits() + 1)), "some")
    choices = np.zeros(game.agents, np.uint8)
    _, costs, taken = every_profile(game)
    least = float(costs[taken <= game.capacity(budget)].min())
    bounds = []
    for price in (None, 0.0, float(game.damage.mean() * rng.uniform(0, 0.5)), 1e6):
        told = certify(game, budget, choices, price)
        assert 0 <= told.lower_bound <= least * (1 + 1e-12) + 1e-300
        bounds.append(told.lower_bound)
    # without a price it is at the one where it is largest
    assert bounds[0] >= max(bounds) - 1e-9 * float(game.damage.sum())


@seeds
def test_the_best_trade_is_the_one_that_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng, most_agents=7)
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    slack = int(rng.integers(0, 20))
    found = best_row_exchange(Rows.of(game), choices, slack)
    size = float(game.damage.max())
    assert found.exact
    assert found.gain == pytest.approx(oracles.exchange_regret(game, choices, slack), abs=1e-9 * size)
    after = choices.copy()
    for agent, strategy in found.moves:
        after[agent] = strategy
    assert found.gain == pytest.approx(
        game.total_damage(choices) - game.total_damage(after), abs=1e-9 * size * game.agents
    )
    assert game.used_bits(after) <= game.used_bits(choices) + slack


def test_results_do_not_depend_on_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    game = coupled_rows(8, 40)
    choices, other = (np.empty(game.agents, np.uint8) for _ in range(2))
    price = float(game.damage.mean() / 3)
    whole = best_profile(Rows.of(game), price, choices)
    monkeypatch.setattr(rows, "SPAN", 7)
    monkeypatch.setattr(sharing, "SPAN", 7)
    assert len(Rows.of(game).patches()) == 8
    parts = best_profile(Rows.of(game), price, other)
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


def test_a_chain_puts_correlated_inputs_side_by_side() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(3, 500))
    # columns 0, 3, 6 are noisy copies of one input, 1, 4, 7 of another, 2, 5, 8 of a third
    x = np.tile(base, (3, 1)) + 0.3 * rng.normal(size=(9, 500))
    hessian = x @ x.T
    order = chain_order(hessian)
    assert sorted(order) == list(range(9))
    assert order[0] == np.argmax(hessian.diagonal())
    assert [len({int(column) % 3 for column in order[k : k + 3]}) for k in (0, 3, 6)] == [1, 1, 1]
    plain, chained = (np.abs(neighbour_correlation(h)).sum() for h in (hessian, hessian[np.ix_(order, order)]))
    assert chained > 2 * plain


def test_a_stencil_fits_its_game_or_is_refused() -> None:
    game = make_game(6, shared=True)
    fine = Stencil(np.zeros(6, np.uint8), ((2, 3),), np.zeros(3, np.float32))
    whole = replace(game, coupling=fine)
    with pytest.raises(DataError, match="of 6 agents, the game of 7"):
        replace(make_game(7, shared=True), coupling=fine)
    many = BitGame(tuple(range(2, 11)), np.ones((6, 9), np.float32), np.broadcast_to(np.arange(2, 11), (6, 9)))
    with pytest.raises(DataError, match="at most 8"):
        replace(many, coupling=fine)
    with pytest.raises(DataError, match="allowed"):
        certify(whole, Budget(1012, "bits"), np.full(6, 5, np.uint8), 0.0)
    with pytest.raises(DataError, match="price"):
        certify(whole, Budget(9999, "bits"), np.full(6, 5, np.uint8), -1.0)
    with pytest.raises(DataError, match="index"):
        certify(whole, Budget(9999, "bits"), np.full(6, 6, np.uint8), 0.0)
    with pytest.raises(UsageError, match="in no communities"):
        Arena.of(whole)
    with pytest.raises(UsageError, match="not coupled by a stencil"):
        Rows.of(game)


@seeds
def test_forbidden_widths_take_their_errors_signs_with_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng)
    allowed = rng.random(game.damage.shape) < 0.6
    allowed[~allowed.any(axis=1), 0] = True
    reduced, expand = reduce_game(game, allowed)
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    played = expand(choices)
    assert allowed[np.arange(game.agents), played].all()
    assert reduced.total_damage(choices) == pytest.approx(game.total_damage(played), rel=1e-12, abs=1e-12)
    assert reduced.used_bits(choices) == game.used_bits(played)


def test_neighbours_in_a_row_cannot_be_fused() -> None:
    with pytest.raises(UsageError, match="cannot fuse agents that are coupled with their neighbours"):
        reduce_game(coupled_rows(2, 4), fusion=np.array([0, -1, -1, -1, 0, -1, -1, -1], np.int32))
