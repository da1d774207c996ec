"""One cell of the table: one solver on one game, and what no solver can beat on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import regret
from nash_swarm.game.interactions import interaction_of
from nash_swarm.solvers.base import Play, Solver
from nash_swarm.suite.isolation import Begin
from nash_swarm.suite.memory import forget_peak, peak_memory
from nash_swarm.suite.synthetic.games import budget_of, make_game

_SMALL = 300
"""Agents of the game that compiles a solver's kernels."""
_ENOUGH, _MOST = 0.2, 5
"""Seconds of repeated play, and plays, after which the least time is believed."""
_TWICE = 2.0
"""A play that takes less seconds is repeated in any case: kernels for many agents are met for the first time in it."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """What holds for every solver on a game.

    Attributes:
        price: damage per bit at the dual bound; the potential is stated at it.
        bound: no choices within the budget have less damage.
    """

    price: float
    bound: float


def find_reference(begin: Begin, family: str, agents: int, seed: int) -> Reference:
    """The lower bound of a game and its price, as in a certificate."""
    _reference_of(make_game(family, min(agents, _SMALL), seed))
    game = make_game(family, agents, seed)
    begin()
    return _reference_of(game)


def _reference_of(game: BitGame) -> Reference:
    found = interaction_of(game).bound(game.capacity(budget_of(game)))
    return Reference(found.price, found.bound)


def measure_solver(
    begin: Begin, solver: Solver, family: str, agents: int, seed: int, reference: Reference | None
) -> Row:
    """Play one game; figures under their names in the table.

    Time and memory are of the play alone, after compilation and without a certificate. The time is the least of
    several plays where they are short.
    """
    _player(solver, make_game(family, min(agents, _SMALL), seed), seed)()
    game = make_game(family, agents, seed)
    play = _player(solver, game, seed)
    forget_peak()
    before = peak_memory()
    begin()
    times: list[float] = []
    while not times or (len(times) == 1 and times[0] < _TWICE) or (sum(times) < _ENOUGH and len(times) < _MOST):
        start = time.perf_counter()
        found = play()
        times.append(time.perf_counter() - start)
    peak = peak_memory()
    damage = game.total_damage(found.choices)
    row: Row = {"damage": damage, "potential": None, "lower bound": None, "gap": None, "unilateral regret": None}
    if reference is not None:
        row["potential"] = damage + reference.price * game.used_bits(found.choices)
        row["lower bound"] = reference.bound
        row["gap"] = (damage - reference.bound) / max(abs(reference.bound), 1e-30)
    if found.price is not None:
        row["unilateral regret"] = regret(interaction_of(game).marginal(found.choices), found.choices, found.price)
    vectors = 0 if game.coupling is None else game.coupling.vectors.nbytes
    tables = game.damage.nbytes + game.memory.nbytes + vectors
    return row | {
        "seconds": min(times), "ns per agent": min(times) / agents * 1e9, "peak memory MB": peak / 1e6,
        "added by the solver MB": max(0, peak - before) / 1e6, "tables MB": tables / 1e6,
    }  # fmt: skip


def _player(solver: Solver, game: BitGame, seed: int) -> Callable[[], Play]:
    capacity = game.capacity(budget_of(game))
    return lambda: solver.play(game, capacity, rng=np.random.default_rng(seed), callback=lambda record: None)
