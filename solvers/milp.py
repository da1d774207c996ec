"""Integer programming: the optimum, with its proof, as far as the time allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.interaction import Separate
from nash_swarm.game.market import clear
from nash_swarm.solvers._branching import Program, branch_and_bound
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import close_bracket, fill, never_worse


@dataclass(frozen=True)
class Milp(Solver):
    """The multiple-choice knapsack as a 0/1 program, solved by HiGHS (Q. Huangfu & J. Hall 2018) through SciPy.

    minimize sum c_i(s) x_i(s) subject to sum_s x_i(s) = 1 for each agent and sum m_i(s) x_i(s) <= capacity.

    With `reduce`, a Lagrangian solution comes first: at the clearing price, a strategy whose damage and price exceed
    the agent's best by more than that solution's distance to the dual bound cannot be part of a better solution (R.
    Dembo & P. Hammer 1980), so only the few agents that are nearly indifferent are left to decide. Without it the
    program is what a textbook would write down. HiGHS works to a relative accuracy of about 1e-9. Where the time runs
    out, the best solution found so far is the result; where there is none, or where rounding would break the budget,
    the Lagrangian solution stands. The trace has the gap to the best bound that was proven. With a time limit that is
    reached, results depend on the machine.

    Coupling is ignored when choosing.

    Attributes:
        time_limit: seconds that HiGHS may take; a large program is stopped a tenth and five seconds later at the most.
        reduce: leave out strategies that cannot be part of a better solution than the Lagrangian one.
    """

    name: ClassVar[str] = "milp"
    summary: ClassVar[str] = "integer programming (HiGHS); the optimum if the time suffices"
    separable: ClassVar[bool] = True

    time_limit: float = 60.0
    reduce: bool = True

    def __post_init__(self) -> None:
        if self.time_limit <= 0:
            raise UsageError("milp: time_limit must be positive")

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        seen = Separate.of(game)
        clearing = clear(seen.tables, capacity)
        choices = clearing.narrow.copy()
        close_bracket(seen, choices, clearing.wide, capacity - seen.total(choices).memory)
        fill(seen, choices, capacity - seen.total(choices).memory)
        choices = never_worse(seen, capacity, choices)
        known = seen.total(choices)
        possible = np.ones(game.damage.shape, np.bool_)
        if self.reduce:
            above = game.damage + clearing.price * (game.memory - game.memory[:, :1])
            above -= above.min(axis=1, keepdims=True)
            possible = above <= (known.damage - clearing.bound) * (1 + 1e-9)
            possible[np.arange(game.agents), choices] = True
        found = _better(game, capacity, choices, possible, self.time_limit)
        point = seen.total(found.choices)
        if point.memory <= capacity and point.damage < known.damage:
            choices = found.choices
            fill(seen, choices, capacity - point.memory)
        end = seen.total(choices)
        # what was left out cannot be part of a better solution than the known one
        bound = max(clearing.bound, min(found.bound, known.damage))
        record = {
            "memory": float(end.memory),
            "damage": end.damage,
            "variables": float(np.count_nonzero(possible)),
            "proven": float(found.proven),
            "gap": max(0.0, end.damage - bound) / max(abs(bound), 1e-30),
        }
        callback(record)
        return Play(choices, trace=(record,), out_of_time=not found.proven)


class _Found(NamedTuple):
    """What branch and bound ended with.

    Attributes:
        choices: uint8 (agents,).
        bound: no possible choices within the capacity have a smaller damage.
        proven: whether these are the best of them.
    """

    choices: npt.NDArray[np.uint8]
    bound: float
    proven: bool


def _better(
    game: BitGame,
    capacity: int,
    choices: npt.NDArray[np.uint8],
    possible: npt.NDArray[np.bool_],
    time_limit: float,
) -> _Found:
    """The best choices HiGHS finds among the possible ones."""
    undecided = np.flatnonzero(possible.sum(axis=1) > 1)
    choices = np.where(possible.sum(axis=1) > 1, choices, possible.argmax(axis=1)).astype(np.uint8)
    if not len(undecided):
        return _Found(choices, game.total_damage(choices), True)
    agent, strategy = np.nonzero(possible[undecided])
    memory, damage = game.memory[undecided], game.damage[undecided].astype(np.float64)
    least = damage.min(axis=1, keepdims=True)
    settled = np.delete(np.arange(game.agents), undecided)
    # above each agent's least, so that numbers of very different size meet as little as possible
    program = Program(
        agent,
        (damage - least)[agent, strategy],
        (memory - memory[:, :1])[agent, strategy],
        capacity - int(game.memory[settled, choices[settled]].sum()) - int(memory[:, 0].sum()),
    )
    answer = branch_and_bound(program, time_limit)
    if len(answer.chosen):
        table = np.full((len(undecided), possible.shape[1]), -1.0)
        table[agent, strategy] = answer.chosen
        choices[undecided] = table.argmax(axis=1)
    rest = float(game.damage[settled, choices[settled]].sum(dtype=np.float64)) + float(least.sum())
    return _Found(choices, rest + answer.bound, answer.proven)
