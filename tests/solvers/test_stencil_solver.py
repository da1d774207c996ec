"""Solving games coupled along rows: against brute force, stored edges and the game without coupling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.games import make_game
from support.stencils import as_coupling, every_profile, sample_stencil_game

from nash_swarm.errors import BudgetError, UsageError
from nash_swarm.game import Budget
from nash_swarm.game.rows import regret, total
from nash_swarm.game.stencil import Stencil, StencilGame
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.nash import Nash
from nash_swarm.solvers.stencil import respond, solve_stencil
from nash_swarm.testing import oracles

DYNAMICS = ("response", "best")


def coupled_rows(rows: int, columns: int, seed: int = 0) -> StencilGame:
    rng = np.random.default_rng(seed)
    correlation = np.append(rng.uniform(-0.5, 0.5, columns - 1), 0).astype(np.float32)
    signs = rng.integers(0, 64, rows * columns).astype(np.uint8)
    return StencilGame(make_game(rows * columns, seed, shared=True), Stencil(signs, ((rows, columns),), correlation))


def third(game: StencilGame) -> Budget:
    return Budget((2 * game.game.smallest_bits() + game.game.largest_bits()) // 3, "a third of the way")


@pytest.mark.parametrize("dynamics", DYNAMICS)
@given(seed=st.integers(0, 2**32))
def test_play_ends_in_an_equilibrium_inside_the_budget(dynamics: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_stencil_game(rng, most_agents=6)
    plain = game.game
    budget = Budget(int(rng.integers(plain.smallest_bits(), plain.largest_bits() + 3)), "some")
    found = solve_stencil(game, budget, dynamics)
    told = found.certificate
    assert told.unilateral_regret == 0
    size = float(plain.damage.max()) + told.price * int(plain.memory[0, -1])
    assert oracles.unilateral_regret(as_coupling(game), found.choices, told.price) <= 1e-6 * size
    assert told.used_bits == plain.used_bits(found.choices) <= budget.total_bits
    _, costs, taken = every_profile(game)
    least = float(costs[taken <= plain.capacity(budget)].min())
    assert told.lower_bound <= least + 1e-12 * size
    assert told.predicted_damage >= least - 1e-12 * size
    if dynamics == "best":  # nothing is lost but the price of the bits that no row could take
        slack = budget.total_bits - told.used_bits
        assert told.predicted_damage - told.lower_bound <= told.price * slack + 1e-10 * size


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_many_agents_fill_the_budget_and_beat_play_without_coupling(dynamics: str) -> None:
    game = coupled_rows(40, 150)
    budget = third(game)
    found = solve_stencil(game, budget, dynamics)
    assert found.certificate.unilateral_regret == 0
    assert 0 <= budget.total_bits - found.certificate.used_bits <= 4
    blind = Lagrangian().solve(game.game, budget)
    assert total(game, blind.choices).damage > 1.02 * found.certificate.predicted_damage
    assert found.certificate.gap < {"best": 1e-4, "response": 0.1}[dynamics]


def test_stored_edges_lead_to_much_the_same() -> None:
    game = coupled_rows(5, 30)
    budget = third(game)
    edges = Nash().solve(as_coupling(game), budget).certificate
    for dynamics in DYNAMICS:
        told = solve_stencil(game, budget, dynamics).certificate
        assert told.predicted_damage == pytest.approx(edges.predicted_damage, rel=0.1)
        # a relaxation to mixed strategies bounds no better than the dual of the game itself
        assert edges.lower_bound <= told.lower_bound * (1 + 1e-3)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_without_correlation_it_is_the_game_without_coupling(dynamics: str) -> None:
    game = coupled_rows(20, 50)
    game = replace(game, stencil=replace(game.stencil, correlation=np.zeros(50, np.float32)))
    budget = third(game)
    told, other = solve_stencil(game, budget, dynamics).certificate, Lagrangian().solve(game.game, budget).certificate
    assert told.price == pytest.approx(other.price, rel=1e-9)
    assert told.lower_bound == pytest.approx(other.lower_bound, rel=1e-9)


def test_every_move_lowers_the_potential_until_nobody_moves() -> None:
    game = coupled_rows(10, 60)
    rng = np.random.default_rng(1)
    choices = rng.integers(0, 6, 600).astype(np.uint8)
    price = 1e-3
    before = total(game, choices).value(price, 0)
    assert regret(game, choices, price) > 0
    assert respond(game, price, choices) > 0
    assert total(game, choices).value(price, 0) < before
    assert regret(game, choices, price) == 0
    assert respond(game, price, choices) == 0


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_a_budget_for_everything_and_one_for_nothing(dynamics: str) -> None:
    game = coupled_rows(4, 10)
    rich = solve_stencil(game, Budget(game.game.largest_bits(), "all"), dynamics)
    assert rich.certificate.price == 0 and rich.certificate.unilateral_regret == 0
    poor = solve_stencil(game, Budget(game.game.smallest_bits(), "least"), dynamics)
    assert not poor.choices.any() and poor.certificate.unilateral_regret == 0
    with pytest.raises(BudgetError, match="smallest feasible"):
        solve_stencil(game, Budget(game.game.smallest_bits() - 1, "too little"), dynamics)


def test_unknown_dynamics_are_refused() -> None:
    game = coupled_rows(2, 3)
    with pytest.raises(UsageError, match="dynamics"):
        solve_stencil(game, third(game), "worst")  # type: ignore[arg-type]
