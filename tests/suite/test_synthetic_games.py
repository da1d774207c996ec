"""Synthetic games: what each kind promises, at small sizes."""

from __future__ import annotations

import numpy as np
import pytest

from nash_swarm.errors import UsageError
from nash_swarm.game.coupling import Coupling
from nash_swarm.suite.synthetic.games import (
    FAMILIES,
    WIDTHS,
    budget_of,
    coupled,
    heavy_tailed,
    make_game,
    numpy_quantile,
    separable,
    table_bytes,
    ties,
)
from nash_swarm.testing import games as testing_games


@pytest.mark.parametrize("family", FAMILIES)
def test_games_are_the_same_whenever_they_are_asked_for(family: str) -> None:
    one, same, other = (make_game(family, 500, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.damage, same.damage) and np.array_equal(one.memory, same.memory)
    assert not np.array_equal(one.damage, other.damage)
    assert (np.diff(one.damage, axis=1) <= 0).all()
    tables = one.damage.nbytes + one.memory.nbytes + (one.coupling.vectors.nbytes if one.coupling else 0)
    assert tables == table_bytes(family, 500)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_budget_is_between_the_ends(family: str) -> None:
    game = make_game(family, 200)
    assert game.smallest_bits() < budget_of(game).total_bits < game.largest_bits()


def test_in_ties_all_agents_share_ten_prices() -> None:
    game = ties(2000, 0)
    prices = -np.diff(game.damage.astype(np.float64), axis=1) / np.diff(game.memory, axis=1)
    assert len(np.unique(prices)) == 10  # exactly: nothing is rounded
    assert (prices[:, 0] == prices[:, 1]).all() and (prices[:, 2] == prices[:, 4]).all()


def test_few_agents_carry_a_heavy_tail() -> None:
    def share(damage: np.ndarray) -> float:
        return float(np.sort(damage[:, 0])[-50:].sum() / damage[:, 0].sum())

    assert share(heavy_tailed(5000, 0).damage) > 0.6 > share(separable(5000, 0).damage)


@pytest.mark.parametrize("agents", [200, 20_000])
def test_the_share_of_the_coupling_does_not_grow_with_the_game(agents: int) -> None:
    game = coupled(agents, 0)
    choices = np.full(agents, 2, np.uint8)
    coupling = game.coupling
    assert isinstance(coupling, Coupling)
    assert 0.3 < coupling.added(choices) / game.damage[:, 2].sum(dtype=np.float64) < 10


def test_coupling_made_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coupled(300, 1).coupling
    monkeypatch.setattr(testing_games, "_CHUNK", 7)
    pieces = coupled(300, 1).coupling
    assert whole is not None and pieces is not None
    assert np.array_equal(whole.vectors, pieces.vectors) and np.array_equal(whole.graph, pieces.graph)


def test_agents_of_one_size_share_a_row_of_memory() -> None:
    assert separable(50, 0, shared=True).memory.strides[0] == 0
    assert len(np.unique(separable(50, 0).memory, axis=0)) == 3


def test_the_quantile_rule_in_numpy() -> None:
    damage = np.zeros((1000, len(WIDTHS)), np.float32)
    damage[:, 0] = np.random.default_rng(0).permutation(1000)
    widths = numpy_quantile(damage)
    assert dict(zip(*np.unique(widths, return_counts=True), strict=True)) == {2: 700, 4: 200, 8: 100}
    assert (widths[np.argsort(damage[:, 0])] == np.repeat([2, 4, 8], [700, 200, 100])).all()


def test_unknown_games_are_refused() -> None:
    with pytest.raises(UsageError, match="separable, coupled, ties, heavy-tailed"):
        make_game("poker", 10)
    with pytest.raises(UsageError, match="at least one agent"):
        make_game("ties", 0)
