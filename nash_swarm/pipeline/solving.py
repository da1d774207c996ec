"""Stage two: from a game and a budget to an allocation, by any solver."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from nash_swarm import arguments, registry
from nash_swarm.errors import LeftOutWarning, UsageError
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.rules import Rules, check_rules
from nash_swarm.names import DEFAULT_SOLVER
from nash_swarm.pipeline.unmet import unmet_budget, unmet_rules
from nash_swarm.progress import watching
from nash_swarm.solvers.base import Callback, Solver


def solve(
    game: BitGame,
    *,
    bits: float | None = None,
    size: str | int | None = None,
    solver: str | Solver = DEFAULT_SOLVER,
    seed: int = 0,
    callback: Callback | None = None,
    rules: Rules | None = None,
    quiet: bool = False,
) -> Allocation:
    """Allocate a budget.

    Args:
        game: from `measure`, or synthetic.
        bits: budget in bits per parameter, everything on disk included; or
        size: budget as a file size, e.g. ``"60MB"``.
        solver: name or instance.
        seed: for solvers that use randomness.
        callback: called once an iteration with a record of it.
        rules: pinned and forbidden widths, and layers that must play alike.
        quiet: show nothing, however long it takes.

    Raises:
        UsageError: unknown solver, not exactly one of `bits` and `size`, or rules that do not fit the game.
        BudgetError: the budget is too small; the message names the smallest feasible one.

    Warns:
        LeftOutWarning: part of a set to fuse is not there or has no sibling, or the widths cannot use the budget.
    """
    arguments.instance("the game", game, BitGame, "from measure or load_game")
    arguments.whole("seed", seed, 0)
    check_rules(rules)
    chosen: Solver = registry.resolve("solvers", solver, "solve")
    budget = Budget.of(game.parameters, bits, size)
    grain = str(game.provenance.get("granularity", ""))
    lines = unmet_rules(game.tensors, rules) if game.tensors else []
    lines += unmet_budget(budget, game.strategies, game.largest_bits(), game.parameters, grain) if game.tensors else []
    for line in lines:
        warnings.warn(line, LeftOutWarning, stacklevel=2)
    found = allocate(chosen, game, budget, seed=seed, callback=callback, rules=rules, quiet=quiet)
    if not lines:
        return found
    left_out = [*found.provenance.get("left_out", ()), *lines]
    return replace(found, provenance={**found.provenance, "left_out": left_out})


def allocate(
    solver: Solver,
    game: BitGame,
    budget: Budget,
    *,
    seed: int = 0,
    callback: Callback | None = None,
    rules: Rules | None = None,
    quiet: bool = False,
) -> Allocation:
    """Let a solver play, showing on standard error how far it is if it takes more than a few seconds.

    Args:
        solver: who allocates.
        game, budget, seed, callback, rules, quiet: see `solve`.

    Raises:
        BudgetError, UsageError: see `solve`.
    """
    with watching(f"solve {solver.name}", quiet=quiet) as progress:
        rng = np.random.default_rng(seed)
        return solver.solve(game, budget, rng=rng, callback=callback, rules=rules, progress=progress)


def make_solver(name: str, time_limit: float | None = None) -> Solver:
    """The solver of that name.

    Args:
        name: in the registry.
        time_limit: seconds that it may play; its own default if not given.

    Raises:
        UsageError: there is none, or it has no time limit; the message names those that have one.
    """
    kind: type[Solver] = registry.load("solvers", name)
    if time_limit is None:
        solver: Solver = registry.create("solvers", name)
        return solver
    if not kind.takes_time_limit():
        able = [other for other in registry.names("solvers") if registry.load("solvers", other).takes_time_limit()]
        raise UsageError(f"solver {name!r} has no time limit; these have one: {', '.join(able) or 'none'}")
    limited: Solver = registry.create("solvers", name, time_limit=time_limit)
    return limited
