"""The contract of every solver, as one function that a plug-in's own tests can call."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nash_swarm.errors import BudgetError
from nash_swarm.game import Allocation, BitGame, Budget
from nash_swarm.game.tables import PRECISION
from nash_swarm.solvers.base import Solver
from nash_swarm.testing import oracles
from nash_swarm.testing.case import Case
from nash_swarm.testing.couplings import Pairs, scaled, shuffled
from nash_swarm.testing.games import sample_budget, sample_coupled_game, sample_game
from nash_swarm.testing.rules_contract import check_rules

_PROFILES = 4**8
"""Games with at most this many profiles are also solved by brute force."""
_SCALE = 4.0**5
"""A power of four, so that scaled damage and coupling vectors have the same rounding."""


def check_solver(solver: Solver, *, examples: int = 50, seed: int = 0) -> None:
    """Hold `solver` to the contract on random games, among them degenerate ones.

    The budget is met and never exceeded, and at least 99.9 % of it is used or no upgrade that lowers the damage fits
    any more; the same seed gives the same choices; the game is not changed; an impossible budget is refused; the
    certificate says what a slow recomputation says; damage in another unit gives as good a result; pinned, forbidden
    and fused agents play what they may; progress, if any is told, is a rising share from 0 to 1. Unless the class has
    `baseline = True`, the total damage is not above that of the best single strategy that fits, and agents in another
    order give as good a result (within 10 %).

    All this holds for coupled games too. On all games no agent may lower the total cost by a change that fits into the
    budget, unless by less than the damage is known to (2^-24 of it, float32): play ends in a Nash equilibrium among the
    profiles that fit. Solvers with `separable = True` choose as if agents were not coupled; on coupled games only
    what does not depend on the coupling, and their certificate, is held.

    Args:
        solver: an instance, with the hyperparameters to test.
        examples: number of games.
        seed: of the games and the solver.

    Raises:
        AssertionError: a rule is broken; the message says which, and the game's number and kind.
    """
    rng = np.random.default_rng(seed)
    for number in range(examples):
        game = sample_game(rng)
        budget = sample_budget(rng, game)
        label = (
            f"{type(solver).__name__}, game {number} of seed {seed} ({game.provenance['kind']}, {game.agents} agents, "
            f"strategies {list(game.strategies)}, {budget.total_bits} of {game.largest_bits()} bits)"
        )
        _check(solver, Case(game, budget, seed + number, label))
    for number in range(max(1, examples // 2)):
        game = sample_coupled_game(rng)
        budget = sample_budget(rng, game)
        label = (
            f"{type(solver).__name__}, coupled game {number} of seed {seed} ({game.provenance['kind']}, {game.agents} "
            f"agents, strategies {list(game.strategies)}, {budget.total_bits} of {game.largest_bits()} bits)"
        )
        _check(solver, Case(game, budget, seed + number, label))
    for number in range(max(1, examples // 5)):
        check_rules(solver, rng, f"{type(solver).__name__}, model {number} of seed {seed}")


def _check(solver: Solver, case: Case) -> None:
    game = case.game
    tables = game.damage.copy(), game.memory.copy()
    allocation = _solve(solver, case)
    unchanged = np.array_equal(game.damage, tables[0]) and np.array_equal(game.memory, tables[1])
    case.require(unchanged, "the solver changed the game's tables")
    # a separable solver fills the budget by the agents' own damage
    _check_budget(case._replace(game=replace(game, coupling=None)) if solver.separable else case, allocation)
    _check_certificate(case, allocation)
    shares: list[float] = []
    again = solver.solve(game, case.budget, rng=np.random.default_rng(case.seed), progress=shares.append)
    case.require(np.array_equal(again.choices, allocation.choices), "the same seed gave other choices")
    rising = all(one <= other for one, other in zip([0.0, *shares], [*shares, 1.0], strict=True))
    case.require(rising, "the progress is no rising share between 0 and 1")
    _check_refusal(solver, case)
    _check_scale(solver, case, allocation)
    if not (solver.baseline or (solver.separable and game.coupling is not None)):
        _check_single(case, allocation)
        _check_order(solver, case, allocation)
        _check_equilibrium(case, allocation)
    if len(game.strategies) ** game.agents <= _PROFILES:
        _check_optimum(case, allocation)


def _solve(solver: Solver, case: Case) -> Allocation:
    return solver.solve(case.game, case.budget, rng=np.random.default_rng(case.seed))


def _check_budget(case: Case, allocation: Allocation) -> None:
    used = case.game.used_bits(allocation.choices)
    slack = case.budget.total_bits - used
    case.require(slack >= 0, f"{used} bits are more than the budget")
    bits, saved = oracles.changes(case.game, allocation.choices)
    fitting = (bits > 0) & (bits <= slack) & (saved > _rounding(case.game))
    case.require(
        used >= 0.999 * case.budget.total_bits or not fitting.any(),
        f"only {used} bits are used although an upgrade fits, e.g. of agent {np.argmax(fitting.any(axis=1))}",
    )


def _rounding(game: BitGame) -> float:
    """What coupled agents' gains may be off by; without coupling they are exact differences."""
    if game.coupling is None:
        return 0.0
    weights, vectors = Pairs.of(game)
    lengths = np.sqrt(np.square(vectors).sum(axis=2).max(axis=1))
    pairs = float(lengths @ np.abs(weights) @ lengths)
    return 1e-10 * (float(game.damage.max(axis=1).sum(dtype=np.float64)) + pairs)


def _check_certificate(case: Case, allocation: Allocation) -> None:
    game, choices, told = case.game, allocation.choices, allocation.certificate
    slack = case.budget.total_bits - game.used_bits(choices)
    scale = float(game.damage.sum(dtype=np.float64)) + told.price * float(game.memory.sum())
    facts = {
        "budget_bits": (told.budget_bits, case.budget.total_bits),
        "used_bits": (told.used_bits, game.used_bits(choices)),
        "predicted_damage": (told.predicted_damage, oracles.total_damage(game, choices)),
        "unilateral_regret": (told.unilateral_regret, oracles.unilateral_regret(game, choices, told.price)),
        "exchange_regret": (told.exchange_regret, oracles.exchange_regret(game, choices, slack)),
    }
    tolerance = max(1e-14 * scale, _rounding(game))
    for name, (value, truth) in facts.items():
        case.require(math.isclose(value, truth, rel_tol=1e-9, abs_tol=tolerance), f"{name} is {truth}, not {value}")
    case.require(told.exchange_exact, "a small game's exchange regret is not exact")
    tolerance = 1e-12 * abs(told.predicted_damage) + _rounding(game)
    case.require(told.lower_bound <= told.predicted_damage + tolerance, "the lower bound is above the damage found")


def _check_equilibrium(case: Case, allocation: Allocation) -> None:
    bits, saved = oracles.changes(case.game, allocation.choices)
    slack = case.budget.total_bits - case.game.used_bits(allocation.choices)
    regret = float(saved[bits <= slack].max())
    # what is left of the budget may stay where it buys less than the rounding of the damage
    tolerance = _rounding(case.game) + PRECISION * abs(allocation.certificate.predicted_damage)
    case.require(regret <= tolerance, f"an agent gains {regret} by a change that fits into the budget")


def _check_refusal(solver: Solver, case: Case) -> None:
    impossible = Budget(case.game.smallest_bits() - 1, "too small")
    try:
        solver.solve(case.game, impossible)
    except BudgetError:
        return
    case.require(False, "a budget below the smallest size did not raise BudgetError")


def _check_scale(solver: Solver, case: Case, allocation: Allocation) -> None:
    game = case.game
    other = _solve(solver, case._replace(game=scaled(game, _SCALE)))
    one, two = game.total_damage(allocation.choices), game.total_damage(other.choices)
    same = math.isclose(one, two, rel_tol=1e-3, abs_tol=_rounding(game))
    case.require(same, f"damage in another unit gave the result {two} instead of {one}")


def _check_order(solver: Solver, case: Case, allocation: Allocation) -> None:
    game = case.game
    moved = shuffled(game, np.random.default_rng(case.seed))
    other = _solve(solver, case._replace(game=moved)).certificate.predicted_damage
    found = allocation.certificate.predicted_damage
    # ties may be broken otherwise, and a heuristic may then end elsewhere
    case.require(
        math.isclose(found, other, rel_tol=0.1, abs_tol=_rounding(game)),
        f"agents in another order end with damage {other} instead of {found}",
    )


def _check_single(case: Case, allocation: Allocation) -> None:
    game, capacity = case.game, case.game.capacity(case.budget)
    found = game.total_damage(allocation.choices)
    for s, width in enumerate(game.strategies):
        if int(game.memory[:, s].sum()) <= capacity:
            single = game.total_damage(np.full(game.agents, s, np.uint8))
            tolerance = 1e-12 * abs(single) + _rounding(game)
            case.require(found <= single + tolerance, f"damage {found}, but all agents at {width} bits have {single}")


def _check_optimum(case: Case, allocation: Allocation) -> None:
    best = oracles.optimum(case.game, case.game.capacity(case.budget))
    told = allocation.certificate
    tolerance = 1e-12 * abs(best) + _rounding(case.game)
    case.require(
        told.lower_bound <= best + tolerance, f"the lower bound {told.lower_bound} is above the optimum {best}"
    )
    case.require(best <= told.predicted_damage + tolerance, f"{told.predicted_damage} is below the optimum {best}")
