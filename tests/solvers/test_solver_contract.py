from __future__ import annotations

import itertools

import numpy as np
import pytest

from nash_swarm import registry
from nash_swarm.game import BitGame, Budget
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.nash import Nash
from nash_swarm.testing import check_solver


@pytest.mark.parametrize("name", registry.names("solvers"))
def test_every_registered_solver_keeps_the_contract(name: str) -> None:
    check_solver(registry.create("solvers", name), examples=60)


@pytest.mark.parametrize("settings", [{"inertia": 0.5}, {"tolerance": 0.01}, {"max_trades": 0}, {"max_prices": 2}])
def test_nash_keeps_the_contract_with_other_hyperparameters(settings: dict[str, float]) -> None:
    check_solver(Nash(**settings), examples=30, seed=1)


class _Broken(Solver):
    name = "broken"
    summary = "breaks one rule"
    separable = True

    def change(self, game: BitGame, capacity: int, choices: np.ndarray, rng: np.random.Generator) -> None:
        raise NotImplementedError

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        choices = Lagrangian().play(game, capacity, rng=rng, callback=callback).choices.copy()
        self.change(game, capacity, choices, rng)
        return Play(choices)


class _Lazy(_Broken):
    def change(self, game: BitGame, capacity: int, choices: np.ndarray, rng: np.random.Generator) -> None:
        choices[:] = 0


class _Fickle(_Broken):
    calls = itertools.count()

    def change(self, game: BitGame, capacity: int, choices: np.ndarray, rng: np.random.Generator) -> None:
        if next(self.calls) % 2 and game.memory[:, 0].sum() < game.memory[0, -1]:
            choices[-1] = 0


class _Vandal(_Broken):
    def change(self, game: BitGame, capacity: int, choices: np.ndarray, rng: np.random.Generator) -> None:
        game.damage[0, 0] += 1


class _Backwards(_Broken):
    def change(self, game: BitGame, capacity: int, choices: np.ndarray, rng: np.random.Generator) -> None:
        left = capacity
        choices[:] = 0
        left -= int(game.memory[:, 0].sum())
        for i, row in enumerate(game.memory):
            while choices[i] + 1 < len(row) and row[choices[i] + 1] - row[choices[i]] <= left:
                left -= int(row[choices[i] + 1] - row[choices[i]])
                choices[i] += 1


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (_Lazy, "upgrade fits"),
        (_Fickle, "other choices"),
        (_Vandal, "tables"),
        (_Backwards, r"all agents at|another order"),
    ],
)
def test_the_contract_suite_notices(broken: type[Solver], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_solver(broken(), examples=60)


def test_the_contract_suite_notices_a_solver_that_ignores_the_coupling_and_does_not_say_so() -> None:
    class Deaf(Lagrangian):
        separable = False

    with pytest.raises(AssertionError, match=r"coupled game .*(fits|all agents at|another order)"):
        check_solver(Deaf(), examples=60)


def test_the_contract_suite_notices_overspending() -> None:
    class Overspender(Lagrangian):
        def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
            return Play(np.full(game.agents, len(game.strategies) - 1, np.uint8))

    with pytest.raises(Exception, match="bits of"):
        check_solver(Overspender(), examples=20)


def test_budget_is_filled_and_gap_tiny(game: BitGame) -> None:
    for bits in np.linspace(game.smallest_bits(), game.largest_bits(), 7)[1:-1]:
        budget = Budget(int(bits), "test")
        found = {name: registry.create("solvers", name).solve(game, budget) for name in registry.names("solvers")}
        assert all(0.9999 <= a.certificate.fill <= 1 for a in found.values())
        assert found["nash"].certificate.gap < 1e-4
        assert found["lagrangian"].certificate.gap < 1e-4
        assert found["greedy"].certificate.gap < 1e-4
        assert found["nash"].certificate.exchange_regret == 0
        assert all(found["nash"].certificate.predicted_damage < found[name].certificate.predicted_damage
                   for name in ("uniform", "quantile"))  # fmt: skip


def test_the_trace_is_what_the_callback_saw(game: BitGame) -> None:
    budget = Budget((game.smallest_bits() + game.largest_bits()) // 2, "half")
    for name in registry.names("solvers"):
        seen: list[dict[str, float]] = []
        allocation = registry.create("solvers", name).solve(game, budget, callback=lambda r, seen=seen: seen.append(r))
        assert list(allocation.trace) == seen
        assert seen
