from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games import make_game

from nash_swarm.artifacts.game import load_game, save_game
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game import BitGame, Coupling
from nash_swarm.game.certificate import certify
from nash_swarm.game.coupling.coupled import Coupled
from nash_swarm.game.interactions import interaction_of
from nash_swarm.game.reduction import reduce_game
from nash_swarm.game.tables import Tables
from nash_swarm.testing import oracles
from nash_swarm.testing.games import couple, sample_budget, sample_coupled_game

seeds = st.integers(0, 2**32)


def profile(rng: np.random.Generator, game: BitGame, capacity: int) -> np.ndarray:
    """A random profile that fits."""
    choices = np.zeros(game.agents, np.uint8)
    for agent in rng.permutation(game.agents):
        choices[agent] = rng.integers(len(game.strategies))
        if game.used_bits(choices) - game.fixed_bits > capacity:
            choices[agent] = 0
    return choices


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_facts_agree_with_the_oracles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng)
    budget = sample_budget(rng, game)
    choices = profile(rng, game, game.capacity(budget))
    price = float(rng.lognormal(0, 5))
    told = certify(game, budget, choices, price)
    size = float(np.abs(game.damage).sum()) + 1e-30
    near = {"rel": 1e-9, "abs": 1e-12 * (size + price * float(game.memory.max()))}
    assert told.predicted_damage == pytest.approx(oracles.total_damage(game, choices), **near)
    assert game.total_damage(choices) == pytest.approx(told.predicted_damage, **near)
    assert told.unilateral_regret == pytest.approx(oracles.unilateral_regret(game, choices, price), **near)
    slack = budget.total_bits - game.used_bits(choices)
    assert told.exchange_exact
    assert told.exchange_regret == pytest.approx(
        oracles.exchange_regret(game, choices, slack), rel=1e-9, abs=1e-12 * size
    )


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_the_potential_is_exact(seed: int) -> None:
    # one agent's change changes the potential by what the agent itself loses, whoever moves and whatever is played
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng)
    price = float(rng.lognormal(-3, 3))
    choices = rng.integers(0, len(game.strategies), game.agents).astype(np.uint8)
    before = oracles.total_damage(game, choices) + price * game.used_bits(choices)
    agent, strategy = int(rng.integers(game.agents)), int(rng.integers(len(game.strategies)))
    seen = interaction_of(game).marginal(choices)
    moved = choices.copy()
    moved[agent] = strategy
    after = oracles.total_damage(game, moved) + price * game.used_bits(moved)
    loss = float(seen.damage[agent, strategy]) - float(seen.damage[agent, choices[agent]])
    loss += price * float(game.memory[agent, strategy] - game.memory[agent, choices[agent]])
    size = float(game.damage.sum()) + price * float(game.memory.sum())
    assert after - before == pytest.approx(loss, rel=1e-9, abs=1e-12 * size + 1e-30)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_the_lower_bound_is_below_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng, most_agents=6)
    capacity = game.capacity(sample_budget(rng, game))
    assert interaction_of(game).bound(capacity).bound <= oracles.optimum(game, capacity)


def test_arena_agrees_with_numpy() -> None:
    rng = np.random.default_rng(1)
    game = couple(rng, make_game(300), communities=5, rank=7, likeness=2)
    coupling = game.coupling
    assert coupling is not None
    choices = rng.integers(0, 6, game.agents).astype(np.uint8)
    arena = Coupled.of(Tables.of(game), coupling).arena
    assert arena.sums(choices) == pytest.approx(coupling.sums(choices))
    saved = oracles.changes(game, choices)[1]
    seen = arena.marginal(choices)
    assert seen.damage[np.arange(300), choices][:, None] - seen.damage == pytest.approx(saved)
    fields = arena.fields(choices)
    squares = np.square(coupling.vectors.astype(np.float64)).sum(axis=2)
    expected = game.damage + np.einsum("isk,ik->is", coupling.vectors, fields[coupling.community]) - 0.5 * squares
    assert arena.gradient(fields).damage == pytest.approx(expected)
    some = np.array([3, 77, 200])
    assert arena.take(some, choices).marginal(choices[some]).damage == pytest.approx(seen.damage[some])


def test_large_games_say_that_not_all_pairs_were_looked_at() -> None:
    rng = np.random.default_rng(2)
    game = couple(rng, make_game(120), communities=3, rank=4)
    choices = rng.integers(1, 5, game.agents).astype(np.uint8)
    seen = interaction_of(game)
    whole = seen.exchange(choices, 1000, 1e-6)
    assert whole.exact
    assert whole.gain == pytest.approx(oracles.exchange_regret(game, choices, 1000))
    assert seen.exchange(choices, 1000, 1e-3).gain == pytest.approx(whole.gain)
    few = seen.exchange(choices, 1000, 1e-6, most=3)
    assert not few.exact
    assert 0 < few.gain <= whole.gain
    moved = choices.copy()
    for agent, strategy in few.moves:
        moved[agent] = strategy
    assert game.total_damage(choices) - game.total_damage(moved) == pytest.approx(few.gain)
    assert game.used_bits(moved) - game.used_bits(choices) <= 1000


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_restricted_coupled_games_cost_what_the_whole_one_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_coupled_game(rng, most_agents=6)
    coupling = game.coupling
    assert coupling is not None
    agents, count = game.damage.shape
    allowed = rng.random((agents, count)) < 0.6
    allowed[np.arange(agents), rng.integers(0, count, agents)] = True
    fusion = np.where(rng.random(agents) < 0.6, coupling.community, -1).astype(np.int32)
    allowed[fusion >= 0] = allowed[fusion >= 0] | (np.arange(count) == 0)
    try:
        reduced, expand = reduce_game(game, allowed, fusion)
    except UsageError as error:
        assert "outweighs" in str(error)
        return
    choices = rng.integers(0, count, reduced.agents).astype(np.uint8)
    whole = expand(choices)
    size = float(np.abs(game.damage).sum() + np.abs(coupling.graph).max() * np.square(coupling.vectors).sum())
    assert allowed[np.arange(agents), whole].all()
    assert reduced.total_damage(choices) == pytest.approx(game.total_damage(whole), rel=1e-5, abs=1e-6 * size + 1e-30)
    assert reduced.used_bits(choices) == game.used_bits(whole)


def test_agents_of_different_communities_are_not_fused() -> None:
    game = couple(np.random.default_rng(3), make_game(10), communities=10, rank=2)
    with pytest.raises(UsageError, match="different communities"):
        reduce_game(game, fusion=np.zeros(10, np.int32))


def test_a_coupling_that_is_none_is_refused() -> None:
    vectors, community, graph = np.ones((3, 2, 4), np.float32), np.zeros(3, np.int32), np.eye(2)
    for wrong, message in [
        ((vectors[0], community, graph), "vectors must be"),
        ((vectors.astype(np.float64), community, graph), "vectors must be"),
        ((vectors * np.float32(np.inf), community, graph), "NaN"),
        ((vectors, community[:2], graph), "communities must be int32"),
        ((vectors, community + np.int32(2), graph), "indices"),
        ((vectors, community, graph[0]), "graph must be float64"),
        ((vectors, community, np.array([[1.0, 2.0], [0.0, 1.0]])), "symmetric"),
        ((vectors, community, np.array([[1.0, 2.0], [2.0, 1.0]])), "semi-definite"),
    ]:
        with pytest.raises(DataError, match=message):
            Coupling(*wrong)
    with pytest.raises(DataError, match="the coupling is of"):
        replace(make_game(4), coupling=Coupling(vectors, community, graph))


def test_a_game_file_keeps_the_coupling(tmp_path) -> None:  # type: ignore[no-untyped-def]
    game = couple(np.random.default_rng(4), make_game(20), communities=3, rank=2)
    choices = np.arange(20, dtype=np.uint8) % 6
    again = load_game(save_game(game, tmp_path / "game.npz"))
    assert again.total_damage(choices) == game.total_damage(choices)
    assert load_game(save_game(make_game(5), tmp_path / "other.npz")).coupling is None
