"""The streaming solver against brute force, the solvers in memory and games of many ties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.games import make_game

from nash_swarm import registry
from nash_swarm.errors import BudgetError, DataError
from nash_swarm.game import BitGame, Budget, streaming
from nash_swarm.game.streaming import StreamedGame, Table
from nash_swarm.solvers import streaming as solver
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.streaming import solve_stream
from nash_swarm.suite.synthetic.streams import Synthetic
from nash_swarm.testing import oracles
from nash_swarm.testing.games import sample_budget, sample_game


def streamed(game: BitGame) -> StreamedGame:
    return StreamedGame.of(game)


def check(game: BitGame, budget: Budget) -> None:
    found = solve_stream(streamed(game), budget)
    told, choices = found.certificate, found.choices
    slack = game.capacity(budget) - (game.used_bits(choices) - game.fixed_bits)
    assert slack >= 0 and told.used_bits == budget.total_bits - slack
    assert told.unilateral_regret == 0
    size = float(game.damage.max()) + told.price * int(game.memory[:, -1].max())
    assert oracles.unilateral_regret(game, choices, told.price) <= 1e-14 * size
    assert told.predicted_damage == pytest.approx(game.total_damage(choices), rel=1e-12)
    # nothing is left but the price of the bits that no step could take
    assert told.predicted_damage - told.lower_bound <= told.price * slack + 1e-12 * size * game.agents
    assert told.price == 0 or slack < int((game.memory[:, -1] - game.memory[:, 0]).max())
    if len(game.strategies) ** game.agents <= 5000:
        assert told.lower_bound <= oracles.optimum(game, game.capacity(budget))


@pytest.mark.parametrize("few", [1 << 16, 0])
@pytest.mark.parametrize("chunk", [1 << 15, 3])
@given(seed=st.integers(0, 2**32))
def test_random_games_end_in_an_equilibrium(few: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver, "_FEW", few)
        patch.setattr(streaming, "CHUNK", chunk)
        check(game, sample_budget(rng, game))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_price_and_bound_are_the_lagrangian_ones(share: float) -> None:
    game = make_game(20_000, seed=3, shared=True)
    budget = Budget(int(game.smallest_bits() + share * (game.largest_bits() - game.smallest_bits())), "share")
    found, other = solve_stream(streamed(game), budget), Lagrangian().solve(game, budget)
    told, expected = found.certificate, other.certificate
    # at the largest budget any price below all steps clears the market
    assert share == 1 or told.price == pytest.approx(expected.price, rel=1e-9)
    assert told.lower_bound == pytest.approx(expected.lower_bound, rel=1e-9)
    slack = told.budget_bits - told.used_bits
    assert slack <= 1 and (share in (0.5, 0.9) or slack == 0)
    assert told.predicted_damage <= expected.predicted_damage + told.price * slack + 1e-9
    assert found.passes <= 4


def test_identical_agents_share_the_budget_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "_FEW", 10)
    monkeypatch.setattr(streaming, "CHUNK", 64)
    damage = np.broadcast_to(np.array([9, 3, 1], np.float32), (1000, 3))
    game = BitGame((2, 3, 4), damage, np.broadcast_to(np.array([2, 3, 4]), (1000, 3)))
    for bits, counts in ((2000, (1000, 0, 0)), (2345, (655, 345, 0)), (3128, (0, 872, 128)), (9999, (0, 0, 1000))):
        found = solve_stream(streamed(game), Budget(bits, "bits"))
        assert tuple(np.bincount(found.choices, minlength=3)) == counts
        assert np.array_equal(found.choices, np.sort(found.choices)[::-1])
        assert found.certificate.unilateral_regret == 0


def test_the_answer_does_not_depend_on_chunks_and_may_be_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = (2, 3, 4, 5, 6, 8)
    game = StreamedGame(widths, Synthetic.even(70_000, widths), np.array([widths]), 10, 70_000)
    budget = Budget.of_bits(3.3, game.parameters)
    whole = solve_stream(game, budget)
    monkeypatch.setattr(streaming, "CHUNK", 999)
    out = np.lib.format.open_memmap(tmp_path / "choices.npy", mode="w+", dtype=np.uint8, shape=(70_000,))
    parts = solve_stream(game, budget, out)
    out.flush()
    assert np.array_equal(np.load(tmp_path / "choices.npy"), whole.choices)
    assert parts.certificate == whole.certificate
    assert whole.certificate.used_bits == budget.total_bits


def test_what_cannot_be_is_refused() -> None:
    game = make_game(100, shared=True)
    with pytest.raises(BudgetError, match="smallest feasible"):
        solve_stream(streamed(game), Budget(100, "100 bits"))
    budget = Budget(game.largest_bits() - 100, "nearly all")
    with pytest.raises(DataError, match="uint8"):
        solve_stream(streamed(game), budget, np.empty(99, np.uint8))
    for wrong in (np.nan, np.inf, -1):
        damage = game.damage.copy()
        damage[50, 3] = wrong
        with pytest.raises(DataError, match="NaN"):
            solve_stream(replace(streamed(game), source=Table(damage)), budget)


def test_the_last_bits_are_left_where_they_buy_less_than_the_damage_is_known_to() -> None:
    # steps of 2 and 4 bits: what is left before a step of 4 is spent on a cheaper one of 2
    plain = make_game(2000, seed=1, shared=True)
    plain = replace(
        plain,
        strategies=(2, 4, 8),
        damage=np.ascontiguousarray(plain.damage[:, [0, 2, 5]]),
        memory=np.broadcast_to(np.array([2, 4, 8]), (2000, 3)),
    )
    # two agents that nothing helps make all else a rounding error
    heavy = np.full((2, 3), 2.0**23, np.float32)
    hopeless = replace(
        plain,
        damage=np.concatenate([plain.damage, heavy]),
        memory=np.broadcast_to(plain.memory[0], (2002, 3)),
    )
    spent = kept = 0
    for extra in range(12):
        budgets = (
            Budget(plain.smallest_bits() + 3000 + extra, "bits"),
            Budget(hopeless.smallest_bits() + 3000 + extra, ""),
        )
        for name in ("lagrangian", "nash", "streaming"):
            one, other = (
                registry.create("solvers", name).solve(game, budget).certificate
                for game, budget in zip((plain, hopeless), budgets, strict=True)
            )
            assert other.unilateral_regret == 0
            assert other.budget_bits - other.used_bits <= 3
            assert one.budget_bits - one.used_bits <= 1
            spent += one.unilateral_regret > 0
            kept += other.used_bits < other.budget_bits - 1
    assert spent == kept > 0
