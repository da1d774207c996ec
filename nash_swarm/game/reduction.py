"""Restricted games as ordinary games: forbidden strategies replaced, agents that must agree made one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling.vectors import Coupling, Fusion

Expand = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
"""Maps choices of the reduced game, uint8 (its agents,), to choices of the original one, uint8 (agents,)."""

_MOST_STRATEGIES = 8
"""What is allowed to an agent is kept as the bits of one byte."""


class _Part(NamedTuple):
    """The game's tables, a row for each agent, and how they are coupled."""

    damage: npt.NDArray[np.float32]
    memory: npt.NDArray[np.int64]
    coupling: Coupling | None


def reduce_game(
    game: BitGame, allowed: npt.NDArray[np.bool_] | None = None, fusion: npt.NDArray[np.int32] | None = None
) -> tuple[BitGame, Expand]:
    """The game in which only the allowed strategies can be told apart and fused agents are one.

    A forbidden strategy's column is a copy of the nearest allowed one (of two equally near ones, the narrower), so that
    every solver can play the reduced game as it is. Fused agents' damage and memory are summed; a strategy is allowed
    for them if it is for all of them. The coupling goes with the damage; what fused agents add to one another is part
    of their common damage. The reduced game has no tensor layout. The original one is not changed.

    Args:
        game: the original game.
        allowed: bool (agents, strategies), which strategies each agent may play; all if not given.
        fusion: int32 (agents,), agents with equal non-negative numbers are fused; none if not given.

    Returns:
        The reduced game, and the map from its choices to the original game's.

    Raises:
        UsageError: the arrays do not have the game's shape, an agent has no strategy left, or agents are fused whose
            coupling does not allow it.
    """
    if allowed is not None and allowed.shape != game.damage.shape:
        raise UsageError(f"allowed must have shape {game.damage.shape}, not {allowed.shape}")
    if allowed is not None and len(game.strategies) > _MOST_STRATEGIES:
        raise UsageError(f"a game with more than {_MOST_STRATEGIES} strategies cannot be restricted")
    if fusion is not None and fusion.shape != (game.agents,):
        raise UsageError(f"fusion must have shape ({game.agents},), not {fusion.shape}")
    part = _Part(game.damage, game.memory, game.coupling)
    group = None
    if fusion is not None:
        part, allowed, group = _fuse(game, allowed, fusion)
    patterns = np.zeros(0, np.uint8)
    nearest: dict[int, npt.NDArray[np.uint8]] = {}
    if allowed is not None:
        patterns = np.packbits(allowed, axis=1, bitorder="little")[:, 0]
        nearest = {int(pattern): _nearest(int(pattern), game.strategies) for pattern in np.unique(patterns)}
        part = _replace(part, patterns, nearest)

    def expand(choices: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        choices = choices.copy()
        for pattern, target in nearest.items():
            rows = patterns == pattern
            choices[rows] = target[choices[rows]]
        return choices if group is None else choices[group]

    reduced = BitGame(
        game.strategies, part.damage, part.memory, game.fixed_bits, game.parameters,
        provenance=game.provenance, coupling=part.coupling,
    )  # fmt: skip
    return reduced, expand


def _nearest(pattern: int, strategies: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """For each strategy the nearest one whose bit is set in `pattern`."""
    allowed = [s for s in range(len(strategies)) if pattern >> s & 1]
    if not allowed:
        raise UsageError("an agent has no strategy left: what it must play is forbidden or no strategy of the game")
    return np.array([min(allowed, key=lambda s: abs(strategies[s] - width)) for width in strategies], np.uint8)


def _replace(part: _Part, patterns: npt.NDArray[np.uint8], nearest: dict[int, npt.NDArray[np.uint8]]) -> _Part:
    """Copies of the tables with each agent's forbidden columns replaced; the tables themselves if there are none."""
    identity = np.arange(part.damage.shape[1])
    changes = {pattern: target for pattern, target in nearest.items() if (target != identity).any()}
    if not changes:
        return part
    rows = {pattern: np.flatnonzero(patterns == pattern) for pattern in changes}
    coupling = part.coupling
    if coupling is not None:
        coupling = coupling.restricted((rows[pattern], target) for pattern, target in changes.items())
    part = _Part(part.damage.copy(), np.array(part.memory), coupling)
    for pattern, target in changes.items():
        for table in (part.damage, part.memory):
            table[rows[pattern]] = table[rows[pattern]][:, target]
    return part


def _fuse(
    game: BitGame, allowed: npt.NDArray[np.bool_] | None, fusion: npt.NDArray[np.int32]
) -> tuple[_Part, npt.NDArray[np.bool_] | None, npt.NDArray[np.int64]]:
    """The tables with one row for each fused group, at the place of its first agent, and each agent's row."""
    members = np.flatnonzero(fusion >= 0)
    _, first, member_group = np.unique(fusion[members], return_index=True, return_inverse=True)
    leader = np.arange(game.agents)
    leader[members] = members[first[member_group]]
    leads = leader == np.arange(game.agents)
    group = (np.cumsum(leads) - 1)[leader]
    rows = group[members[first]]
    damage, memory, coupling = game.damage[leads], game.memory[leads], None
    pairs = np.zeros((len(rows), len(game.strategies)))
    if game.coupling is not None:
        coupling, pairs = game.coupling.fused(Fusion(members, member_group, first, leads, rows))
    for s in range(len(game.strategies)):
        own = np.bincount(member_group, weights=game.damage[members, s], minlength=len(rows))
        if (own + pairs[:, s] < -1e-6 * own).any():
            raise UsageError("cannot fuse agents whose coupling with one another outweighs their own damage")
        damage[rows, s] = np.maximum(own + pairs[:, s], 0.0)
        # exact: bits of one group stay far below 2**53
        memory[rows, s] = np.bincount(member_group, weights=game.memory[members, s], minlength=len(rows))
    if allowed is not None:
        all_allow = allowed[leads]
        np.logical_and.at(all_allow, group[members], allowed[members])
        allowed = all_allow
    return _Part(damage, memory, coupling), allowed, group
