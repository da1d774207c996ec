"""The part of the solvers' contract that is about pins, forbidden widths and fusion."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import BudgetError
from nash_swarm.game import Allocation, Budget
from nash_swarm.game.rules import Rules
from nash_swarm.solvers.base import Solver
from nash_swarm.testing.case import Case
from nash_swarm.testing.games import sample_budget, sample_model_game, sample_rules


def check_rules(solver: Solver, rng: np.random.Generator, label: str) -> None:
    """Hold `solver` to the rules of a random game with the tensors of a tiny transformer.

    Raises:
        AssertionError: a rule is broken.
    """
    game = sample_model_game(rng)
    rules = sample_rules(rng, game)
    reduced, _ = rules.apply(game)
    budget = sample_budget(rng, reduced)
    label += f" ({game.provenance['kind']}, {rules or 'no rules'}, strategies {list(game.strategies)})"
    case = Case(game, budget, int(rng.integers(2**32)), label)
    allocation = solver.solve(game, budget, rng=np.random.default_rng(case.seed), rules=rules)
    _check_widths(case, rules, allocation)
    _check_fusion(case, rules, allocation)
    told, used = allocation.certificate, game.used_bits(allocation.choices)
    case.require(used <= budget.total_bits, "the budget is exceeded")
    # fused damage is summed in float32
    same = math.isclose(told.predicted_damage, game.total_damage(allocation.choices), rel_tol=1e-5)
    case.require(same and told.used_bits == used, "the certificate is not of these choices")
    case.require(allocation.tensors == game.tensors, "the tensors are missing")
    if rules:
        case.require(Rules.from_json(allocation.provenance["rules"]) == rules, "the rules are not in the provenance")
    try:
        solver.solve(game, Budget(reduced.smallest_bits() - 1, "too small"), rules=rules)
    except BudgetError:
        return
    case.require(False, "a budget that the rules make impossible did not raise BudgetError")


def _check_widths(case: Case, rules: Rules, allocation: Allocation) -> None:
    for tensor in case.game.tensors:
        played = set(allocation.widths(tensor).ravel().tolist())
        if tensor.kind == "tied" and "lm_head" in rules.keep:
            case.require(played == {rules.keep["lm_head"]}, f"{tensor.name} is pinned and plays {played}")
        if ".layers.1." in tensor.name:
            forbidden = played & set(rules.forbid.get("layers.1.*", ()))
            case.require(not forbidden, f"{tensor.name} plays the forbidden {forbidden}")


def _check_fusion(case: Case, rules: Rules, allocation: Allocation) -> None:
    played: dict[tuple[str, tuple[str, ...]], list[npt.NDArray[np.uint8]]] = {}
    for tensor in case.game.tensors:
        parent, _, leaf = tensor.name.rpartition(".")
        for siblings in rules.fuse:
            if leaf in siblings:
                played.setdefault((parent, siblings), []).append(allocation.choices[tensor.span])
    for (parent, siblings), (first, *others) in played.items():
        alike = all(np.array_equal(first, other) for other in others)
        case.require(alike, f"{', '.join(siblings)} of {parent} do not play alike")
