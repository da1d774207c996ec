from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from nash_swarm import registry
from nash_swarm.errors import TimeLimitWarning, UsageError
from nash_swarm.game import BitGame, Budget
from nash_swarm.solvers.annealing import Annealing
from nash_swarm.solvers.dp import Dp
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.milp import Milp
from nash_swarm.testing import oracles
from nash_swarm.testing.games import sample_budget, sample_game


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_dp_finds_the_optimum_of_small_games(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng, most_agents=5)
    budget = sample_budget(rng, game)
    found = Dp().solve(game, budget)
    assert found.trace[-1]["exact"]
    if len(game.strategies) ** game.agents <= 4**6:
        best = oracles.optimum(game, game.capacity(budget))
        assert found.certificate.predicted_damage == pytest.approx(best, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_milp_agrees_with_dp(seed: int, reduce: bool) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng)
    budget = sample_budget(rng, game)
    found, expected = Milp(reduce=reduce).solve(game, budget), Dp().solve(game, budget)
    if game.provenance["kind"] != "huge range":  # beyond the accuracy of HiGHS
        best = expected.certificate.predicted_damage
        assert found.certificate.predicted_damage == pytest.approx(best, rel=1e-6, abs=1e-7 * float(game.damage.max()))
    assert found.trace[-1]["proven"]


def test_exact_solvers_agree_with_a_program_written_by_hand(game: BitGame) -> None:
    few = BitGame(game.strategies, game.damage[:150], game.memory[:150])
    capacity = (few.smallest_bits() + few.largest_bits()) // 3
    cells = 150 * 6
    program = milp(
        few.damage.ravel().astype(np.float64),
        integrality=np.ones(cells),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(np.kron(np.eye(150), np.ones(6)), 1, 1),
            LinearConstraint(few.memory.reshape(1, -1), 0, capacity),
        ],
        options={"mip_rel_gap": 0},
    )
    for name in ("dp", "milp"):
        found = registry.create("solvers", name).solve(few, Budget(capacity, "third")).certificate
        assert found.predicted_damage == pytest.approx(program.fun, rel=1e-7)
    for name in ("lagrangian", "nash", "greedy"):
        found = registry.create("solvers", name).solve(few, Budget(capacity, "third")).certificate
        assert program.fun * (1 - 1e-7) <= found.predicted_damage <= program.fun * 1.01


def test_dp_on_a_coarse_grid_keeps_the_budget_and_says_so(game: BitGame) -> None:
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 3, "third")
    found = Dp(most_cells=10_000_000).solve(game, budget)
    record = found.trace[-1]
    assert game.used_bits(found.choices) <= budget.total_bits
    assert game.agents * ((budget.total_bits - game.smallest_bits()) // record["grid"] + 1) <= 10_000_000
    assert record["exact"] == (record["grid"] == np.gcd.reduce(np.diff(game.memory, axis=1), axis=None))


def test_dp_refuses_tables_beyond_its_limit() -> None:
    game = BitGame((2, 4), np.ones((10, 2), np.float32), np.broadcast_to(np.array([200, 400]), (10, 2)))
    budget = Budget(3000, "3000")
    assert Dp(grid=200, most_cells=60).solve(game, budget).trace[-1]["exact"] == 1
    with pytest.raises(UsageError, match="a grid of 200 bits or more"):
        Dp(grid=1, most_cells=60).solve(game, budget)
    with pytest.raises(UsageError, match="another solver"):
        Dp(most_cells=10).solve(game, budget)


def test_milp_keeps_the_lagrangian_solution_when_time_runs_out(game: BitGame) -> None:
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 3, "third")
    with pytest.warns(
        TimeLimitWarning, match=r"milp: the time limit of 0.001 s was reached; .* % of the least possible"
    ):
        found = Milp(time_limit=1e-3, reduce=False).solve(game, budget)
    assert not found.trace[-1]["proven"]
    assert found.certificate.gap / 2 < found.trace[-1]["gap"] <= found.certificate.gap * (1 + 1e-9)
    assert found.certificate.predicted_damage <= Lagrangian().solve(game, budget).certificate.predicted_damage


def test_annealing_depends_on_the_seed_and_lands_near_the_bound(game: BitGame) -> None:
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 3, "third")
    one, two = (Annealing().solve(game, budget, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert not np.array_equal(one.choices, two.choices)
    assert max(one.certificate.gap, two.certificate.gap) < 0.1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("dp", {"grid": 0}), ("dp", {"most_cells": 0}), ("milp", {"time_limit": 0}), ("annealing", {"cold": 3}),
     ("annealing", {"tries": 0}), ("nash", {"inertia": 1}), ("nash", {"tolerance": -1}), ("nash", {"max_sweeps": 0}),
     ("quantile", {"wide_share": 0}), ("quantile", {"middle_share": 2}), ("greedy", {"nonsense": 1})],
)  # fmt: skip
def test_impossible_hyperparameters_are_refused(name: str, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        registry.create("solvers", name, **wrong)


def test_milp_prints_nothing_even_where_highs_does(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(8)
    for number in range(250):
        game = sample_game(rng)
        budget = sample_budget(rng, game)
        if number == 249:  # the HiGHS of SciPy 1.17 prints a line here
            Milp().solve(game, budget)
    assert capfd.readouterr().out == ""
