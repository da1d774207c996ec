"""Restricted games as ordinary games: forbidden strategies replaced, agents that must agree made one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling import Coupling

Expand = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
"""Maps choices of the reduced game, uint8 (its agents,), to choices of the original one, uint8 (agents,)."""

_MOST_STRATEGIES = 8
"""What is allowed to an agent is kept as the bits of one byte."""


class _Part(NamedTuple):
    """The game's tables, a row for each agent."""

    damage: npt.NDArray[np.float32]
    memory: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32] | None


def reduce_game(
    game: BitGame, allowed: npt.NDArray[np.bool_] | None = None, fusion: npt.NDArray[np.int32] | None = None
) -> tuple[BitGame, Expand]:
    """The game in which only the allowed strategies can be told apart and fused agents are one.

    A forbidden strategy's column is a copy of the nearest allowed one (of two equally near ones, the narrower), so that
    every solver can play the reduced game as it is. Fused agents' damage and memory are summed; a strategy is allowed
    for them if it is for all of them. Coupling vectors go with the damage; what fused agents add to one another is part
    of their common damage. The reduced game has no tensor layout. The original one is not changed.

    Args:
        game: the original game.
        allowed: bool (agents, strategies), which strategies each agent may play; all if not given.
        fusion: int32 (agents,), agents with equal non-negative numbers are fused; none if not given.

    Returns:
        The reduced game, and the map from its choices to the original game's.

    Raises:
        UsageError: the arrays do not have the game's shape, an agent has no strategy left, or agents of different
            communities are fused.
    """
    if allowed is not None and allowed.shape != game.damage.shape:
        raise UsageError(f"allowed must have shape {game.damage.shape}, not {allowed.shape}")
    if allowed is not None and len(game.strategies) > _MOST_STRATEGIES:
        raise UsageError(f"a game with more than {_MOST_STRATEGIES} strategies cannot be restricted")
    if fusion is not None and fusion.shape != (game.agents,):
        raise UsageError(f"fusion must have shape ({game.agents},), not {fusion.shape}")
    part = _Part(game.damage, game.memory, None if game.coupling is None else game.coupling.vectors)
    group = None
    community = None if game.coupling is None else game.coupling.community
    if fusion is not None:
        part, allowed, group, leads = _fuse(game, allowed, fusion)
        community = None if community is None else community[leads]
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

    coupling = None
    if game.coupling is not None and community is not None and part.vectors is not None:
        coupling = Coupling(part.vectors, community, game.coupling.graph)
    reduced = BitGame(
        game.strategies, part.damage, part.memory, game.fixed_bits, game.parameters,
        provenance=game.provenance, coupling=coupling,
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
    vectors = None if part.vectors is None else part.vectors.copy()
    part = _Part(part.damage.copy(), np.array(part.memory), vectors)
    for pattern, target in changes.items():
        rows = np.flatnonzero(patterns == pattern)
        for table in part:
            if table is not None:
                table[rows] = table[rows][:, target]
    return part


def _fuse(
    game: BitGame, allowed: npt.NDArray[np.bool_] | None, fusion: npt.NDArray[np.int32]
) -> tuple[_Part, npt.NDArray[np.bool_] | None, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The tables with one row for each fused group, at the place of its first agent; each agent's row; who leads."""
    members = np.flatnonzero(fusion >= 0)
    _, first, member_group = np.unique(fusion[members], return_index=True, return_inverse=True)
    leader = np.arange(game.agents)
    leader[members] = members[first[member_group]]
    leads = leader == np.arange(game.agents)
    group = (np.cumsum(leads) - 1)[leader]
    rows = group[members[first]]
    damage, memory, vectors = game.damage[leads], game.memory[leads], None
    pairs = np.zeros((len(rows), len(game.strategies)))
    if game.coupling is not None:
        vectors = game.coupling.vectors[leads]
        vectors[rows], pairs = _fuse_vectors(game.coupling, members, first, member_group)
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
    return _Part(damage, memory, vectors), allowed, group, leads


def _fuse_vectors(
    coupling: Coupling,
    members: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    member_group: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each group's summed vectors (groups, strategies, rank), and what its members' pairs add (groups, strategies)."""
    community = coupling.community[members]
    if (community != community[first][member_group]).any():
        raise UsageError("cannot fuse agents of different communities of the coupling's graph")
    parts = coupling.vectors[members].astype(np.float64)
    total, squares = np.zeros((len(first), *parts.shape[1:])), np.zeros((len(first), parts.shape[1]))
    np.add.at(total, member_group, parts)
    np.add.at(squares, member_group, np.square(parts).sum(axis=2))
    weight = 0.5 * coupling.graph[community[first], community[first]][:, None]
    return total, weight * (np.square(total).sum(axis=2) - squares)
