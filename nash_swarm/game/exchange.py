"""The best trade of bits between two agents, exactly.

A trade moves one agent to a cheaper strategy and another to a dearer one within the bits that are left; an agent alone
may also change within them. Only the two best moves (of different agents) of each difference in memory can be part of
the best trade, and of those only the ones that no move with a smaller difference outdoes, so the agents are read once
and what remains is small: few differences are distinct where agents have few shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans


class Exchange(NamedTuple):
    """A trade.

    Attributes:
        gain: fall of the total damage, in nats per token; 0 if there is no trade that lowers it.
        moves: (agent, new strategy index) of the one or two agents that change.
        exact: there is no better one.
    """

    gain: float
    moves: tuple[tuple[int, int], ...]
    exact: bool = True


class _Moves(NamedTuple):
    """Changes of single agents: difference in memory (bits), gain (nats per token), agent * 256 + strategy."""

    delta: npt.NDArray[np.int64]
    gain: npt.NDArray[np.float64]
    move: npt.NDArray[np.int64]

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> _Moves:
        return _Moves(self.delta[index], self.gain[index], self.move[index])


def best_exchange(tables: Tables, choices: npt.NDArray[np.uint8], slack: int) -> Exchange:
    """The trade that lowers the total damage most while taking at most `slack` bits more.

    Args:
        tables: the game.
        choices: uint8 (agents,), the profile to improve on; unchanged.
        slack: bits of the capacity that the profile leaves.
    """
    return best_of(
        over_spans(lambda start, stop: span_offers(tables, choices, slack, start, stop), tables.agents), slack
    )


class Offers(NamedTuple):
    """What a span of agents has to offer: the moves that can be part of the best trade, and its best single move.

    Attributes:
        moves: see `_Moves`.
        gain: what the single move gains; 0 without one.
        alone: agent * 256 + strategy of the single move.
    """

    moves: _Moves
    gain: float
    alone: int

    def shifted(self, agents: int) -> Offers:
        """The same of agents that are numbered from `agents` on."""
        moves = self.moves._replace(move=self.moves.move + 256 * agents)
        return Offers(moves, self.gain, self.alone + 256 * agents)


def best_of(spans: Sequence[Offers], slack: int) -> Exchange:
    """The best trade among what all spans offer, within `slack` bits."""
    single = max(spans, key=lambda span: span.gain)
    best = Exchange(single.gain, (divmod(single.alone, 256),)) if single.gain > 0 else Exchange(0.0, ())
    moves = _Moves(*(np.concatenate(column) for column in zip(*(span.moves for span in spans), strict=True)))
    down, (up, gains, partners) = (_frontier(moves.take(side)) for side in (moves.delta < 0, moves.delta > 0))
    if not len(up.delta) or not len(down[0].delta):
        return best
    downs = down[0]
    at = np.searchsorted(up.delta, slack - downs.delta, side="right") - 1
    downs, at = downs.take(at >= 0), at[at >= 0]
    if not len(at):
        return best
    # the best partner may be the very agent that gives; then it is the second best
    second = (partners[at, 0] >> 8 == downs.move >> 8).astype(np.int64)
    gain = downs.gain + gains[at, second]
    k = int(np.argmax(gain))
    if gain[k] <= best.gain:
        return best
    pair = (int(downs.move[k]), int(partners[at[k], second[k]]))
    return Exchange(float(gain[k]), tuple(divmod(move, 256) for move in pair))


def span_offers(tables: Tables, choices: npt.NDArray[np.uint8], slack: int, start: int, stop: int) -> Offers:
    """What the agents from `start` to `stop` offer."""
    slots = 1 << 10
    while True:
        delta = np.zeros(slots, np.int64)
        gain, move = np.full((slots, 2), -np.inf), np.full((slots, 2), -1)
        fits, *single = _collect(*tables, choices, start, stop, slack, delta, gain, move)
        if fits:
            break
        slots *= 4
    filled = move >= 0
    moves = _Moves(np.repeat(delta, 2)[filled.ravel()], gain[filled], move[filled])
    sides = [_frontier(moves.take(side))[0] for side in (moves.delta < 0, moves.delta > 0)]
    return Offers(_Moves(*(np.concatenate(column) for column in zip(*sides, strict=True))), single[0], single[1])


def _frontier(moves: _Moves) -> tuple[_Moves, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The moves that are among the two best, of different agents, of all with at most their difference in memory.

    Returns them by rising difference, and beside each the gains and moves of those two best, shape (moves, 2).
    """
    moves = moves.take(np.argsort(moves.delta, kind="stable"))
    gain, move = np.full((len(moves.delta), 2), -np.inf), np.full((len(moves.delta), 2), -1)
    keep = np.zeros(len(moves.delta), np.bool_)
    _prefix_best(moves.gain, moves.move, keep, gain, move)
    return moves.take(keep), gain[keep], move[keep]


@njit(nogil=True, cache=True)
def _enter(gain, move, best_gain, best_move):  # type: ignore[no-untyped-def]
    """Put a move among the two best of different agents; returns whether it is one of them."""
    same_first = best_move[0] >= 0 and best_move[0] >> 8 == move >> 8
    if gain > best_gain[0]:
        if not same_first:
            best_gain[1] = best_gain[0]
            best_move[1] = best_move[0]
        best_gain[0] = gain
        best_move[0] = move
        return True
    if gain > best_gain[1] and not same_first:
        best_gain[1] = gain
        best_move[1] = move
        return True
    return False


@njit(nogil=True, cache=True)
def _prefix_best(gains, moves, keep, best_gain, best_move):  # type: ignore[no-untyped-def]
    for k in range(len(gains)):
        if k > 0:
            best_gain[k] = best_gain[k - 1]
            best_move[k] = best_move[k - 1]
        keep[k] = _enter(gains[k], moves[k], best_gain[k], best_move[k])


@njit(nogil=True, cache=True)
def _collect(damage, memory, choices, start, stop, slack, deltas, gains, moves):  # type: ignore[no-untyped-def]
    """Hash every move by its difference in memory; returns whether the table sufficed, and the best single move."""
    step = 0 if memory.shape[0] == 1 else 1
    mask = len(deltas) - 1
    used = 0
    alone_gain = 0.0
    alone = np.int64(-1)
    for i in range(start, stop):
        row = i * step
        now = choices[i]
        for s in range(damage.shape[1]):
            delta = memory[row, s] - memory[row, now]
            gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
            move = np.int64(i) * 256 + s
            if delta <= slack and gain > alone_gain:
                alone_gain = gain
                alone = move
            # a dearer strategy that does not lower the damage adds nothing to the giver's move alone
            if delta == 0 or (delta > 0 and gain <= 0):
                continue
            slot = ((delta * -7046029254386353131) >> 20) & mask
            while deltas[slot] != delta and deltas[slot] != 0:
                slot = (slot + 1) & mask
            if deltas[slot] == 0:
                used += 1
                if 2 * used > len(deltas):
                    return False, alone_gain, alone
                deltas[slot] = delta
            if gain > gains[slot, 1]:
                _enter(gain, move, gains[slot], moves[slot])
    return True, alone_gain, alone
