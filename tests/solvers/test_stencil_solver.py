"""Solving games coupled along rows: against brute force, stored edges and the game without coupling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stencils import as_coupling, coupled_rows, every_profile, third

from nash_swarm.errors import UsageError
from nash_swarm.game import BitGame, Budget, Stencil
from nash_swarm.game.bitgame import pick
from nash_swarm.game.certificate import Certificate, certify
from nash_swarm.game.rows import Rows
from nash_swarm.solvers._row_fill import fill_rows, trade_rows
from nash_swarm.solvers._row_market import play_rows
from nash_swarm.solvers._row_response import respond
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.nash import Nash
from nash_swarm.solvers.nash_swarm import NashSwarm
from nash_swarm.solvers.swarm import Swarm
from nash_swarm.testing.games import sample_row_game

DYNAMICS = ("response", "best")


def told(game: BitGame, budget: Budget, dynamics: str) -> Certificate:
    play = play_rows(Rows.of(game), game.capacity(budget), dynamics, 100, lambda point, more: None)  # type: ignore[arg-type]
    return certify(game, budget, play.choices, play.price)


def hopeless(game: BitGame) -> BitGame:
    """With a row of damage that nothing helps, beside which the last bits of the others are a rounding error."""
    assert isinstance(game.coupling, Stencil)
    columns = len(game.coupling.correlation)
    heavy = np.full((columns, len(game.strategies)), 2.0**23, np.float32)
    ((rows, _),) = game.coupling.shapes
    stencil = replace(
        game.coupling, signs=np.append(game.coupling.signs, np.zeros(columns, np.uint8)), shapes=((rows + 1, columns),)
    )
    return BitGame(
        game.strategies,
        np.concatenate([game.damage, heavy]),
        np.broadcast_to(game.memory[0], (game.agents + columns, len(game.strategies))),
        game.fixed_bits,
        game.parameters,
        coupling=stencil,
    )


@pytest.mark.parametrize("dynamics", DYNAMICS)
@given(seed=st.integers(0, 2**32))
def test_play_ends_inside_the_budget_near_the_best_there_is(dynamics: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng, most_agents=6)
    budget = Budget(int(rng.integers(game.smallest_bits(), game.largest_bits() + 3)), "some")
    found = told(game, budget, dynamics)
    assert found.used_bits <= budget.total_bits
    _, costs, taken = every_profile(game)
    fits = taken <= game.capacity(budget)
    size = float(game.damage.max()) * game.agents
    assert found.predicted_damage >= costs[fits].min() - 1e-9 * size
    assert found.lower_bound <= costs[fits].min() + 1e-9 * size


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_where_the_last_bits_are_immaterial_the_result_is_an_exact_equilibrium(dynamics: str) -> None:
    game = hopeless(coupled_rows(30, 64))
    for extra in (0, 1, 2):
        budget = Budget(game.smallest_bits() + 3000 + extra, "bits")
        found = told(game, budget, dynamics)
        assert found.unilateral_regret == 0 and found.price > 0
        assert 0 <= budget.total_bits - found.used_bits <= 8


def test_coupled_play_beats_play_that_is_blind_and_the_best_profile_beats_response() -> None:
    game = coupled_rows(100, 200)
    budget = third(game)
    blind = Lagrangian().solve(game, budget).certificate
    nash, both = Nash().solve(game, budget).certificate, NashSwarm().solve(game, budget).certificate
    assert blind.predicted_damage > 1.02 * nash.predicted_damage > 1.02 * both.predicted_damage
    assert both.gap < 1e-4 and nash.gap < 0.1
    assert both.used_bits == nash.used_bits == budget.total_bits


def test_stored_edges_lead_to_much_the_same() -> None:
    game = coupled_rows(5, 30)
    budget = third(game)
    edges = Nash().solve(as_coupling(game), budget).certificate
    for dynamics in DYNAMICS:
        found = told(game, budget, dynamics)
        assert found.predicted_damage == pytest.approx(edges.predicted_damage, rel=0.1)
        # a relaxation to mixed strategies bounds no better than the dual of the game itself
        assert edges.lower_bound <= found.lower_bound * (1 + 1e-3)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_without_correlation_it_is_the_game_without_coupling(dynamics: str) -> None:
    game = coupled_rows(20, 50)
    assert isinstance(game.coupling, Stencil)
    game = replace(game, coupling=replace(game.coupling, correlation=np.zeros(50, np.float32)))
    budget = third(game)
    found, other = told(game, budget, dynamics), Lagrangian().solve(replace(game, coupling=None), budget).certificate
    assert found.lower_bound == pytest.approx(other.lower_bound, rel=1e-6)
    assert found.predicted_damage == pytest.approx(other.predicted_damage, rel=1e-6)


def test_every_move_lowers_the_potential_until_nobody_moves() -> None:
    game = Rows.of(coupled_rows(10, 60))
    choices = np.random.default_rng(1).integers(0, 6, 600).astype(np.uint8)
    price = 1e-3
    before = game.total(choices).value(price, 0)
    assert game.regret(choices, price) > 0
    assert respond(game, price, choices) > 0
    assert game.total(choices).value(price, 0) < before
    assert game.regret(choices, price) == 0
    assert respond(game, price, choices) == 0


@given(seed=st.integers(0, 2**32))
def test_filling_and_trading_only_lower_the_cost_and_leave_no_change_that_fits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_row_game(rng)
    rows, choices = Rows.of(game), np.zeros(game.agents, np.uint8)
    slack = int(rng.integers(0, game.largest_bits() - game.smallest_bits() + 1))
    before, used = rows.total(choices), game.used_bits(choices)
    left = fill_rows(rows, choices, slack)
    filled = rows.total(choices)
    assert filled.damage <= before.damage
    assert left == slack - (game.used_bits(choices) - used) >= 0
    seen = rows.effective(choices).damage
    gain = pick(seen, choices)[:, None] - seen
    bits = game.memory - pick(game.memory, choices)[:, None]
    assert gain[bits <= left].max() <= 1e-9 * float(game.damage.max())
    trade_rows(rows, choices, left, 5)
    assert rows.total(choices).damage <= filled.damage
    assert game.used_bits(choices) <= used + slack


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_a_budget_for_everything_and_one_for_nothing(dynamics: str) -> None:
    game = coupled_rows(4, 10)
    rich = told(game, Budget(game.largest_bits(), "all"), dynamics)
    assert rich.price == 0 and rich.unilateral_regret == 0
    poor = told(game, Budget(game.smallest_bits(), "least"), dynamics)
    assert poor.used_bits == game.smallest_bits() and poor.unilateral_regret == 0


def test_what_cannot_be_played_is_refused() -> None:
    game = coupled_rows(2, 3)
    with pytest.raises(UsageError, match="dynamics"):
        told(game, third(game), "worst")
    with pytest.raises(UsageError, match="'swarm' does not play agents coupled by a stencil; take nash-swarm or nash"):
        Swarm().solve(game, third(game))
