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
from nash_swarm.game.coupling.coupled import Coupled
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._flight import Flight, Found, Market, Particle, bits_of, fly, neighbours
from nash_swarm.solvers.toolbox import fill, interaction_of, repair, respond, trade
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
def test_every_turn_lowers_the_potential_until_nobody_moves(coupled: BitGame, inertia: float) -> None:
    rng = np.random.default_rng(1)
    seen, price = interaction_of(coupled), 1e-5
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    potential = [_potential(coupled, choices, price)]
    for _ in range(200):
        turn = respond(seen, price, choices, rng=rng, inertia=inertia)
        potential.append(_potential(coupled, choices, price))
        if turn.moves == turn.passed == 0:
            break
    assert turn.moves == turn.passed == 0
    assert turn.regret < 1e-12 * potential[-1]
    assert len(potential) > 3  # more than the one turn that agents without coupling need
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(potential))
    assert oracles.unilateral_regret(coupled, choices, price) < 1e-12 * potential[-1]


def _one_by_one(game: BitGame, choices: np.ndarray, wanted: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Moves by the gain they promise, each made if it still gains."""
    bits, saved = oracles.changes(game, choices)
    agents = np.arange(game.agents)
    gain = (saved - prices[:, None] * bits)[agents, wanted]
    choices = choices.copy()
    for agent in np.argsort(-gain, kind="stable"):
        bits, saved = oracles.changes(game, choices)
        if saved[agent, wanted[agent]] > prices[agent] * bits[agent, wanted[agent]]:
            choices[agent] = wanted[agent]
    return choices


def test_moves_are_made_where_they_still_gain(coupled: BitGame) -> None:
    rng = np.random.default_rng(2)
    seen, prices = interaction_of(coupled), 1e-5 * rng.uniform(0.5, 2, coupled.agents)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    bits, saved = oracles.changes(coupled, choices)
    wanted = np.argmax(saved - prices[:, None] * bits, axis=1).astype(np.uint8)
    expected = _one_by_one(coupled, choices, wanted, prices)
    assert 0 < np.count_nonzero(expected != wanted) < coupled.agents  # some moves gain no more when it is their turn
    before = choices.copy()
    moves = seen.follow(seen.marginal(choices), choices, wanted, prices)
    assert np.array_equal(choices, expected)
    assert moves == np.count_nonzero(choices != before)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_repair_and_fill_end_inside_the_budget_with_nothing_left_to_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng)
    capacity = game.capacity(sample_budget(rng, game))
    seen = interaction_of(game)
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    slack = repair(seen, choices, capacity - game.used_bits(choices) + game.fixed_bits)
    before = game.total_damage(choices)
    assert slack == capacity - game.used_bits(choices) + game.fixed_bits >= 0
    left = fill(seen, choices, slack)
    assert left == capacity - game.used_bits(choices) + game.fixed_bits >= 0
    size = float(np.abs(game.damage).sum() + np.square(game.coupling.vectors).sum() * np.abs(game.coupling.graph).max())
    assert game.total_damage(choices) <= before + 1e-12 * size
    bits, saved = oracles.changes(game, choices)
    assert not ((bits <= left) & (saved > 1e-10 * size)).any()


def test_trades_end_without_exchange_regret(coupled: BitGame) -> None:
    rng = np.random.default_rng(3)
    seen, budget = interaction_of(coupled), _budget(coupled)
    capacity = coupled.capacity(budget)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    fill(seen, choices, repair(seen, choices, capacity - seen.total(choices).memory))
    before = coupled.total_damage(choices)
    assert trade(seen, choices, capacity, 1e-5, 3) == 3
    assert trade(seen, choices, capacity, 1e-5, 10_000) > 0
    assert coupled.total_damage(choices) < before
    slack = capacity - seen.total(choices).memory
    assert oracles.exchange_regret(coupled, choices, slack) < 1e-9 * before


@pytest.mark.parametrize("number", range(10))
def test_a_part_of_the_game_is_the_game_with_the_others_fixed(number: int) -> None:
    rng = np.random.default_rng(number)
    game = couple(rng, make_game(60, number), communities=4, rank=6, likeness=float(rng.uniform(0, 3)))
    seen = interaction_of(game)
    choices = rng.integers(0, 6, game.agents).astype(np.uint8)
    agents = np.sort(rng.choice(game.agents, 7, replace=False))
    part, own = seen.among(agents, choices), choices[agents]
    moved = rng.integers(0, 6, 7).astype(np.uint8)
    whole = choices.copy()
    whole[agents] = moved
    change = game.total_damage(whole) - game.total_damage(choices)
    assert part.total(moved).damage - part.total(own).damage == pytest.approx(change, rel=1e-9, abs=1e-12)


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
    assert coupled.coupling is not None
    seen, community = Coupled.of(Tables.of(coupled), coupled.coupling), coupled.coupling.community
    weights = neighbours(coupled.coupling.graph)
    rng = np.random.default_rng(5)
    choices = rng.integers(0, 6, coupled.agents).astype(np.uint8)
    prices = np.log(1e-5) + rng.normal(size=6)
    particle = Particle(choices.copy(), prices, *(np.zeros(6) for _ in range(3)))
    still, found = Flight(1, 1, 0.0, 0.0, 0.0, 0.0), Found(0.0, choices.copy(), prices.copy())
    aligned = weights @ prices
    own = np.exp(aligned)[community]
    bits, saved = oracles.changes(coupled, choices)
    wanted = np.argmax(saved - own[:, None] * bits, axis=1).astype(np.uint8)
    expected = _one_by_one(coupled, choices, wanted, own)
    shares, room = np.full(6, 20_000.0), 1e6
    fly(Market(seen, weights, shares, room), particle, found, found, still, 7)
    assert np.array_equal(particle.choices, expected)
    taken = np.bincount(community, coupled.memory[np.arange(200), expected], 6) - shares
    assert bits_of(seen, expected) - shares == pytest.approx(taken)
    assert particle.excess == pytest.approx(taken)
    assert particle.prices == pytest.approx(aligned + np.clip(4.0 * taken * 6 / room, -1, 1))


def test_imitators_take_what_the_leader_plays(coupled: BitGame) -> None:
    assert coupled.coupling is not None
    seen = Coupled.of(Tables.of(coupled), coupled.coupling)
    leader = np.full(coupled.agents, 3, np.uint8)
    particle = Particle(np.zeros(coupled.agents, np.uint8), np.full(6, np.log(1e-5)), *(np.zeros(6) for _ in range(3)))
    found, all_imitate = Found(0.0, leader, particle.prices.copy()), Flight(1, 1, 0.0, 0.0, 0.0, 1.0)
    fly(Market(seen, neighbours(coupled.coupling.graph), np.zeros(6), 1e6), particle, found, found, all_imitate, 7)
    assert np.array_equal(particle.choices, leader)


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
