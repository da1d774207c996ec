"""Play on coupled games: the kernels against NumPy, and what solvers promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games import make_game

from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.game import BitGame, Budget
from nash_swarm.game.arena import Arena, Members
from nash_swarm.solvers._coupled_fill import fill_coupled, repair_coupled
from nash_swarm.solvers._coupled_response import sweep_coupled
from nash_swarm.solvers._coupled_trade import trade_coupled
from nash_swarm.solvers._flight import Particle, Pull, fly, neighbours
from nash_swarm.testing import oracles
from nash_swarm.testing.games import couple, sample_budget, sample_coupled_game


@pytest.fixture
def coupled() -> BitGame:
    return couple(np.random.default_rng(0), make_game(200), communities=6, rank=5, likeness=1.0)


def _budget(game: BitGame, share: float = 1 / 3) -> Budget:
    return Budget(int(game.smallest_bits() + share * (game.largest_bits() - game.smallest_bits())), f"{share}")


def _potential(game: BitGame, choices: np.ndarray, price: float) -> float:
    return game.total_damage(choices) + price * game.used_bits(choices)


@pytest.mark.parametrize("inertia", [0.0, 0.5])
def test_every_sweep_lowers_the_potential_until_nobody_moves(coupled: BitGame, inertia: float) -> None:
    rng = np.random.default_rng(1)
    arena, price = Arena.of(coupled), 1e-5
    members = Members.of(arena)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    potential = [_potential(coupled, choices, price)]
    for _ in range(200):
        turn = sweep_coupled(arena, members, price, choices, rng=rng, inertia=inertia)
        potential.append(_potential(coupled, choices, price))
        if turn.moves == turn.passed == 0:
            break
    assert turn.moves == turn.passed == turn.regret == 0
    assert len(potential) > 3  # more than the one sweep that agents without coupling need
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(potential))
    assert oracles.unilateral_regret(coupled, choices, price) < 1e-12 * potential[-1]


def test_agents_respond_one_after_the_other_as_in_numpy() -> None:
    # one agent a community, so that the order of turns is the order of communities, from 0 in steps of 1
    game = couple(np.random.default_rng(2), make_game(5), communities=5, rank=3, community=np.arange(5, dtype=np.int32))
    arena, price = Arena.of(game), 1e-4

    class Rng:
        def integers(self, *args: object, size: int) -> np.ndarray:
            return np.array([5, 5, 1, 1])

    choices = np.array([5, 0, 3, 1, 4], np.uint8)
    expected = choices.copy()
    for agent in range(5):
        bits, saved = oracles.changes(game, expected)
        expected[agent] = np.argmax(saved[agent] - price * bits[agent])
    sweep_coupled(arena, Members.of(arena), price, choices, rng=Rng())  # type: ignore[arg-type]
    assert np.array_equal(choices, expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_repair_and_fill_end_inside_the_budget_with_nothing_left_to_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng)
    capacity = game.capacity(sample_budget(rng, game))
    arena = Arena.of(game)
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    slack = repair_coupled(arena, choices, capacity - game.used_bits(choices) + game.fixed_bits)
    before = game.total_damage(choices)
    assert slack == capacity - game.used_bits(choices) + game.fixed_bits >= 0
    left = fill_coupled(arena, choices, slack)
    assert left == capacity - game.used_bits(choices) + game.fixed_bits >= 0
    size = float(np.abs(game.damage).sum() + np.square(game.coupling.vectors).sum() * np.abs(game.coupling.graph).max())
    assert game.total_damage(choices) <= before + 1e-12 * size
    bits, saved = oracles.changes(game, choices)
    assert not ((bits <= left) & (saved > 1e-10 * size)).any()


def test_trades_end_without_exchange_regret(coupled: BitGame) -> None:
    rng = np.random.default_rng(3)
    arena, budget = Arena.of(coupled), _budget(coupled)
    capacity = coupled.capacity(budget)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    fill_coupled(arena, choices, repair_coupled(arena, choices, capacity - arena.total(choices).memory))
    before = coupled.total_damage(choices)
    assert trade_coupled(arena, choices, capacity, 1e-5, 3) == 3
    assert trade_coupled(arena, choices, capacity, 1e-5, 10_000) > 0
    assert coupled.total_damage(choices) < before
    slack = capacity - arena.total(choices).memory
    assert oracles.exchange_regret(coupled, choices, slack) < 1e-9 * before


def test_neighbours_agree_in_the_end() -> None:
    rng = np.random.default_rng(4)
    graph = np.where(rng.random((9, 9)) < 0.2, 1.0, 0.0)
    weights = neighbours(graph + graph.T)
    assert (weights >= 0).all()
    assert weights.sum(axis=0) == pytest.approx(1)
    assert weights.sum(axis=1) == pytest.approx(1)
    prices = rng.normal(size=9)
    assert np.linalg.matrix_power(weights, 500) @ prices == pytest.approx(prices.mean())
    assert neighbours(np.eye(1)) == 1


def test_a_flight_aligns_responds_and_separates(coupled: BitGame) -> None:
    arena = Arena.of(coupled)
    members, weights = Members.of(arena), neighbours(arena.graph)
    rng = np.random.default_rng(5)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    prices = np.log(1e-5) + rng.normal(size=6)
    particle = Particle(choices, prices, *(np.zeros(6) for _ in range(3)))
    still = Pull(prices.copy(), prices.copy(), choices.copy(), 0.0, 0.0, 0.0, 0.0)
    expected, sums = choices.copy(), arena.sums(choices)
    aligned = weights @ prices
    for c in range(6):
        for agent in np.flatnonzero(arena.community == c):
            bits, saved = oracles.changes(coupled, expected)
            expected[agent] = np.argmax(saved[agent] - np.exp(aligned[c]) * bits[agent])
    shares, room = np.full(6, 20_000.0), 1e6
    fly(arena, members, weights, shares, room, sums, particle, still, 4.0, 7)
    assert np.array_equal(particle.choices, expected)
    assert sums == pytest.approx(arena.sums(expected))
    taken = np.bincount(arena.community, coupled.memory[np.arange(200), expected], 6) - shares
    assert particle.excess == pytest.approx(taken)
    assert particle.prices == pytest.approx(aligned + np.clip(4.0 * taken * 6 / room, -1, 1))


@pytest.mark.parametrize("number", range(8))
def test_nash_swarm_is_never_worse_than_what_it_is_made_of(number: int) -> None:
    rng = np.random.default_rng(number)
    game = couple(rng, make_game(60, number), communities=4, rank=6, likeness=float(rng.uniform(0, 3)))
    costs = {
        name: registry.create("solvers", name).solve(game, _budget(game), rng=np.random.default_rng(9)).certificate
        for name in registry.names("solvers")
    }
    best = costs["nash-swarm"]
    assert all(best.predicted_damage <= told.predicted_damage * (1 + 1e-12) for told in costs.values())
    assert best.gap < 0.5
    assert best.exchange_regret <= 1e-9 * best.predicted_damage
    assert costs["lagrangian"].lower_bound == pytest.approx(best.lower_bound)


def test_nash_swarm_without_coupling_plays_nash(game: BitGame) -> None:
    found = [registry.create("solvers", name).solve(game, _budget(game)) for name in ("nash", "nash-swarm")]
    assert found[1].certificate.predicted_damage <= found[0].certificate.predicted_damage


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("swarm", {"particles": 0}), ("swarm", {"imitation": 1}), ("swarm", {"spread": -1}), ("nash-swarm", {"rounds": 0}),
     ("nash-swarm", {"max_trades": -1})],
)  # fmt: skip
def test_impossible_hyperparameters_are_refused(name: str, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        registry.create("solvers", name, **wrong)
