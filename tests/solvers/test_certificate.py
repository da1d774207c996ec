from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from nash_swarm.errors import DataError
from nash_swarm.game import BitGame, Budget
from nash_swarm.game.certificate import certify
from nash_swarm.game.exchange import best_exchange
from nash_swarm.game.tables import Tables
from nash_swarm.testing import oracles
from nash_swarm.testing.games import sample_budget, sample_game

seeds = st.integers(0, 2**32)


def _profile(rng: np.random.Generator, game: BitGame, capacity: int) -> np.ndarray:
    choices = np.zeros(game.agents, np.uint8)
    for agent in rng.permutation(game.agents):
        choices[agent] = rng.integers(len(game.strategies))
        if game.used_bits(choices) - game.fixed_bits > capacity:
            choices[agent] = 0
    return choices


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_facts_agree_with_the_oracles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng)
    budget = sample_budget(rng, game)
    capacity = game.capacity(budget)
    choices = _profile(rng, game, capacity)
    price = float(rng.lognormal(0, 5))
    told = certify(game, budget, choices, price)
    slack = budget.total_bits - game.used_bits(choices)
    size = float(game.damage.sum(dtype=np.float64))
    assert told.price == price
    assert told.used_bits == game.used_bits(choices)
    assert told.predicted_damage == pytest.approx(game.total_damage(choices), rel=1e-12)
    regret = oracles.unilateral_regret(game, choices, price)
    assert told.unilateral_regret == pytest.approx(regret, rel=1e-9, abs=1e-14 * (size + price * game.memory.max()))
    assert told.exchange_regret == pytest.approx(
        oracles.exchange_regret(game, choices, slack), rel=1e-9, abs=1e-15 * size
    )


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_lower_bound_is_the_linear_relaxation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng, most_agents=5)
    if game.provenance["kind"] == "huge range":
        return  # beyond the tolerances of the linear-programming oracle
    budget = sample_budget(rng, game)
    capacity = game.capacity(budget)
    told = certify(game, budget, np.zeros(game.agents, np.uint8))
    count = len(game.strategies)
    relaxed = linprog(
        game.damage.ravel().astype(np.float64),
        A_ub=game.memory.reshape(1, -1),
        b_ub=[capacity],
        A_eq=np.kron(np.eye(game.agents), np.ones(count)),
        b_eq=np.ones(game.agents),
    )
    assert told.lower_bound == pytest.approx(relaxed.fun, rel=1e-6, abs=1e-7)
    if count**game.agents <= 4**6:
        assert told.lower_bound <= oracles.optimum(game, capacity) * (1 + 1e-12)


def test_lower_bound_is_true_in_floating_point() -> None:
    # damages that float64 sums cannot hold together: the bound may not creep above the optimum
    for scales in itertools.product([1e-30, 1.0, 1e30], repeat=3):
        damage = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 0.0]]) * np.array(scales)[:, None]
        game = BitGame((2, 4), damage.astype(np.float32), np.broadcast_to(np.array([2, 4]), (3, 2)))
        for bits in range(6, 13):
            told = certify(game, Budget(bits, ""), np.zeros(3, np.uint8))
            assert told.lower_bound <= oracles.optimum(game, bits)


def test_exchange_with_all_memory_differences_distinct() -> None:
    # more distinct differences than the hash table starts with, over several frontiers
    rng = np.random.default_rng(0)
    agents = 2000
    memory = np.cumsum(rng.integers(1, 10**6, (agents, 4)), axis=1)
    game = BitGame((2, 3, 4, 8), rng.random((agents, 4), dtype=np.float32), memory)
    choices = rng.integers(0, 4, agents).astype(np.uint8)
    gain, moves, _ = best_exchange(Tables.of(game), choices, 1000)
    bits, saved = oracles.changes(game, choices)
    best = saved[bits <= 1000].max()
    down, up = np.argwhere(bits < 0), np.argwhere(bits > 0)
    for giver, s in down:
        fits = up[(bits[up[:, 0], up[:, 1]] + bits[giver, s] <= 1000) & (up[:, 0] != giver)]
        best = max(best, (saved[giver, s] + saved[fits[:, 0], fits[:, 1]]).max(initial=-np.inf))
    assert gain == best
    assert sum(saved[agent, strategy] for agent, strategy in moves) == gain
    assert sum(bits[agent, strategy] for agent, strategy in moves) <= 1000


def test_choices_of_another_game_are_refused() -> None:
    game = BitGame((2, 4), np.ones((3, 2), np.float32), np.broadcast_to(np.array([2, 4]), (3, 2)))
    fine = np.zeros(3, np.uint8)
    for choices, message in [
        (fine[:2], "must be uint8"),
        (fine.astype(int), "must be uint8"),
        ([0, 0, 0], "list"),
        (fine + np.uint8(2), "no index"),
        (fine + np.uint8(1), "12 bits of 11"),
    ]:
        with pytest.raises(DataError, match=message):
            certify(game, Budget(11, "11"), choices)  # type: ignore[arg-type]
    for price in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="price"):
            certify(game, Budget(11, "11"), fine, price)


def test_no_solver_is_needed_for_the_optimum_when_everything_fits() -> None:
    game = BitGame((2, 4), np.array([[2, 1], [5, 3]], np.float32), np.array([[2, 4], [2, 4]]))
    told = certify(game, Budget(8, "8"), np.array([1, 1], np.uint8))
    assert (told.price, told.unilateral_regret, told.exchange_regret) == (0, 0, 0)
    assert told.gap == pytest.approx(0, abs=1e-13)
    assert told.fill == 1
