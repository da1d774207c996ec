"""Random changes and trades, accepted less and less often when they do harm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.chance import chance
from nash_swarm.game.demand import demand, totals
from nash_swarm.game.interaction import Separate
from nash_swarm.game.market import FREE, PROHIBITIVE
from nash_swarm.game.tables import Tables
from nash_swarm.solvers.base import Callback, Play, Progress, Solver, ignore_progress
from nash_swarm.solvers.toolbox import fill, never_worse

_STAGES = 50


@dataclass(frozen=True)
class Annealing(Solver):
    """Simulated annealing (Kirkpatrick, Gelatt & Vecchi, Science 220, 1983) in the manner of ExLlamaV2.

    ExLlamaV2 chooses the widths of an EXL2 model like this (`exllamav2/conversion/optimize.py`): all agents start with
    the cheapest strategy; a random agent tries a random strategy; what fits is accepted if it lowers the error, or else
    with probability exp(-rise / temperature), and the temperature falls geometrically. Here a change that does not fit
    is tried as a trade, together with a random other agent's change to a random cheaper strategy. Temperatures are
    relative to the mean damage per agent that widths can save. What is left at the end is filled.

    The number of tries is limited, so large games are hardly explored: it is a baseline, one thread.

    Coupling is ignored when choosing.

    Attributes:
        tries: tries per agent.
        most_tries: tries in all.
        hot: temperature at the start.
        cold: temperature at the end.
    """

    name: ClassVar[str] = "annealing"
    summary: ClassVar[str] = "simulated annealing of single changes and trades, as ExLlamaV2 does; a baseline"
    baseline: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    tries: int = 2000
    most_tries: int = 20_000_000
    hot: float = 0.02
    cold: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.tries, self.most_tries) < 1 or not 0 < self.cold <= self.hot:
            raise UsageError("annealing: tries must be positive and 0 < cold <= hot")

    def play(
        self,
        game: BitGame,
        capacity: int,
        *,
        rng: np.random.Generator,
        callback: Callback,
        progress: Progress = ignore_progress,
    ) -> Play:
        """See `Solver.play`; the tries are random."""
        tables = Tables.of(game)
        choices = np.empty(game.agents, np.uint8)
        least = demand(tables, FREE, choices)
        start = demand(tables, PROHIBITIVE, choices)
        scale = max((start.damage - least.damage) / game.agents, 1e-300)
        slack = capacity - start.memory
        each = math.ceil(min(self.tries * game.agents, self.most_tries) / _STAGES)
        trace = []
        for stage in range(_STAGES):
            temperature = self.hot * (self.cold / self.hot) ** (stage / (_STAGES - 1))
            slack = _anneal(*tables, choices, slack, temperature * scale, each, int(rng.integers(2**62)))
            point = totals(tables, choices)
            trace.append({"temperature": temperature, "memory": float(point.memory), "damage": point.damage})
            callback(trace[-1])
            progress((stage + 1) / _STAGES)
        fill(Separate(tables), choices, slack)
        return Play(never_worse(Separate(tables), capacity, choices), trace=tuple(trace))


@njit(nogil=True, cache=True)
def _anneal(damage, memory, choices, slack, temperature, tries, seed):  # type: ignore[no-untyped-def]
    """Try random changes at one temperature; returns the bits left."""
    step = 0 if memory.shape[0] == 1 else 1
    agents, strategies = damage.shape
    for k in range(tries):
        i = int(chance(seed, 5 * k) * agents)
        s = int(chance(seed, 5 * k + 1) * strategies)
        bits = memory[i * step, s] - memory[i * step, choices[i]]
        rise = np.float64(damage[i, s]) - np.float64(damage[i, choices[i]])
        j = i
        t = s
        if bits > slack:
            j = int(chance(seed, 5 * k + 2) * agents)
            t = int(chance(seed, 5 * k + 3) * (choices[j] + 1))
            bits += memory[j * step, t] - memory[j * step, choices[j]]
            rise += np.float64(damage[j, t]) - np.float64(damage[j, choices[j]])
            if j == i or bits > slack:
                continue
        if rise <= 0 or chance(seed, 5 * k + 4) * math.exp(min(rise / temperature, 700.0)) < 1:
            choices[i] = s
            choices[j] = t
            slack -= bits
    return slack
