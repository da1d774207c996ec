"""Best-response dynamics along rows: an agent that moves wakes its neighbours, until nobody moves."""

from __future__ import annotations

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.interaction import Choices
from nash_swarm.game.rows import Rows, best_response, error_of, field_at, play_errors

_MAX_SWEEPS = 1000


def respond(rows: Rows, price: float, choices: Choices) -> int:
    """Let agents respond at `price` until nobody moves; changes `choices`, returns the number of moves.

    Args:
        rows: the game.
        price: damage per bit.
        choices: uint8 (agents,), changed in place.
    """
    return sum(rows.over_rows(lambda part: int(_respond(part, price, choices[part.span], _MAX_SWEEPS))))


@njit(nogil=True, cache=True)
def _respond(part, price, choices, sweeps):  # type: ignore[no-untyped-def]
    """Row by row: turns from first to last column, again for the neighbours of who moved, until the row is quiet."""
    _, _, damage, memory, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    awake = np.empty(columns + 1, np.bool_)
    moves = 0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        awake[:] = True
        for _ in range(sweeps):
            quiet = True
            for c in range(columns):
                if not awake[c]:
                    continue
                awake[c] = False
                i = first + c
                around = field_at(correlation, played, c)
                best, gain = best_response(damage, memory, signs, i, choices[i], played[c], around, price)
                if gain > 0:
                    choices[i] = best
                    played[c] = error_of(damage, signs, i, best)
                    awake[max(c - 1, 0)] = True
                    awake[c + 1] = True
                    moves += 1
                    quiet = False
            if quiet:
                break
    return moves
