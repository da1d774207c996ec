"""The kernels against the same computations in NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nash_swarm import sharing
from nash_swarm.game import BitGame, Budget
from nash_swarm.game.certificate import certify
from nash_swarm.game.demand import demand, regret, totals
from nash_swarm.game.interaction import Separate
from nash_swarm.game.market import FREE, PROHIBITIVE, clear
from nash_swarm.game.tables import Tables
from nash_swarm.solvers.toolbox import close_bracket, fill, respond, supporting_price, trade
from nash_swarm.testing import oracles


def _demand(game: BitGame, price: float) -> np.ndarray:
    return np.argmin(game.damage.astype(np.float64) + price * (game.memory - game.memory[:, :1]), axis=1)


@pytest.mark.parametrize("price", [0.0, FREE, 1e-6, 1e-4, 1e-2, 1.0, PROHIBITIVE])
def test_demand(game: BitGame, price: float) -> None:
    choices = np.empty(game.agents, np.uint8)
    with np.errstate(over="ignore"):
        expected = _demand(game, price)
    point = demand(Tables.of(game), price, choices)
    assert np.array_equal(choices, expected)
    assert point.memory == game.used_bits(choices) - game.fixed_bits
    assert point.damage == math.fsum(game.damage[np.arange(game.agents), choices].astype(np.float64))
    assert totals(Tables.of(game), choices, price) == point
    assert regret(Tables.of(game), choices, price) == 0


def test_indifferent_agents_take_the_cheaper_strategy() -> None:
    game = BitGame(
        (2, 3, 4), np.array([[2, 1, 0], [1, 1, 1]], np.float32), np.broadcast_to(np.array([2, 3, 4]), (2, 3))
    )
    choices = np.empty(2, np.uint8)
    assert demand(Tables.of(game), 1.0, choices).memory == 4
    assert choices.tolist() == [0, 0]


def test_results_do_not_depend_on_spans(game: BitGame, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 2, "half")
    choices = clear(Tables.of(game), game.capacity(budget)).narrow
    whole = certify(game, budget, choices)
    monkeypatch.setattr(sharing, "SPAN", 97)
    assert certify(game, budget, choices) == whole
    one, other = choices.copy(), choices.copy()
    slack = game.capacity(budget) - totals(Tables.of(game), choices).memory
    left = fill(Separate.of(game), one, slack)
    monkeypatch.undo()
    assert fill(Separate.of(game), other, slack) == left
    assert np.array_equal(one, other)


def test_clearing_is_exact(game: BitGame) -> None:
    capacity = (game.smallest_bits() + game.largest_bits()) // 3 - game.fixed_bits
    clearing = clear(Tables.of(game), capacity)
    at = lambda choices: int(game.memory[np.arange(game.agents), choices].sum())  # noqa: E731
    assert at(clearing.narrow) <= capacity < at(clearing.wide)
    assert at(_demand(game, clearing.price * (1 + 1e-9))) <= capacity < at(_demand(game, clearing.price * (1 - 1e-9)))
    for price in clearing.price * np.array([0.5, 0.99, 1.01, 2.0]):
        best = (game.damage + price * game.memory).min(axis=1).sum() - price * capacity
        assert best <= clearing.bound * (1 + 1e-12)


def test_fill_spends_all_it_can_and_never_harms(game: BitGame) -> None:
    rng = np.random.default_rng(1)
    for slack in (0, 1, 500, 40_000):
        choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
        before = choices.copy()
        left = fill(Separate.of(game), choices, slack)
        bits, saved = oracles.changes(game, choices)
        assert not ((bits <= left) & (saved > 0)).any()
        assert slack - left == game.used_bits(choices) - game.used_bits(before)
        assert game.total_damage(choices) <= game.total_damage(before)


def test_closing_a_bracket_takes_the_best_ratios_first() -> None:
    game = BitGame((2, 4), np.array([[3, 0], [9, 0], [6, 0]], np.float32), np.broadcast_to(np.array([2, 4]), (3, 2)))
    choices = np.zeros(3, np.uint8)
    assert close_bracket(Separate.of(game), choices, np.ones(3, np.uint8), 5) == 1
    assert choices.tolist() == [0, 1, 1]


@pytest.mark.parametrize("inertia", [0.0, 0.4])
def test_best_response_play_ends_in_the_demand_at_the_price(game: BitGame, inertia: float) -> None:
    rng = np.random.default_rng(2)
    tables = Tables.of(game)
    # beside the clearing price, at which somebody is indifferent
    price = 1.001 * clear(tables, (game.smallest_bits() + game.largest_bits()) // 3).price
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    potential = [totals(tables, choices).value(price, 0)]
    for _ in range(100):
        turn = respond(Separate.of(game), price, choices, rng=rng, inertia=inertia)
        potential.append(totals(tables, choices).value(price, 0))
        if turn.moves == turn.passed == 0:
            break
    assert all(after <= before for before, after in itertools.pairwise(potential))
    assert turn.regret == 0
    assert (len(potential) == 3) == (inertia == 0)  # one sweep to move, one to see that all is quiet
    wanted = np.empty_like(choices)
    demand(tables, price, wanted)
    assert np.array_equal(choices, wanted)


def test_trading_ends_without_exchange_regret(game: BitGame) -> None:
    tables = Tables.of(game)
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 3, "third")
    capacity = game.capacity(budget)
    clearing = clear(tables, capacity)
    choices = clearing.narrow.copy()
    rng = np.random.default_rng(3)
    choices[rng.choice(game.agents, 20, replace=False)] = 0
    before = game.total_damage(choices)
    made = trade(Separate.of(game), choices, capacity, clearing.price, 10_000)
    assert 0 < made < 10_000
    assert game.total_damage(choices) < before
    assert certify(game, budget, choices).exchange_regret == 0


def test_supporting_price_has_the_least_regret(game: BitGame) -> None:
    tables = Tables.of(game)
    clearing = clear(tables, (game.smallest_bits() + game.largest_bits()) // 3)
    assert regret(tables, clearing.narrow, supporting_price(tables, clearing.narrow, 2 * clearing.price)) == 0
    choices = clearing.narrow.copy()
    choices[:3] = 5
    choices[3:6] = 0
    price = supporting_price(tables, choices, clearing.price)
    least = regret(tables, choices, price)
    assert all(least <= regret(tables, choices, price * factor) * (1 + 1e-9) for factor in np.logspace(-3, 3, 61))


def test_of_equal_ratios_the_large_upgrade_goes_first() -> None:
    game = BitGame((2, 4), np.array([[1, 0], [10, 0], [1, 0]], np.float32), np.array([[2, 4], [20, 40], [2, 4]]))
    for spend in (lambda choices: close_bracket(Separate.of(game), choices, np.ones(3, np.uint8), 23),
                  lambda choices: fill(Separate.of(game), choices, 23)):  # fmt: skip
        choices = np.zeros(3, np.uint8)
        assert spend(choices) == 1
        assert choices.tolist() == [1, 1, 0]


def test_trading_in_a_large_game_at_its_optimum(monkeypatch: pytest.MonkeyPatch, game: BitGame) -> None:
    monkeypatch.setattr(Separate, "pool", 100)
    tables = Tables.of(game)
    choices = np.empty(game.agents, np.uint8)
    demand(tables, FREE, choices)
    assert trade(Separate.of(game), choices, game.largest_bits(), 0.0, 10) == 0
    choices[:200] = 0
    assert trade(Separate.of(game), choices, game.largest_bits(), 0.0, 1000) == 200
