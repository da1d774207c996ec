"""Holding an allocation against the game it claims to solve."""

from __future__ import annotations

import math
from dataclasses import asdict

from nash_swarm.errors import DataError
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.certificate import certify
from nash_swarm.game.rules import Rules

_TOLERANCE = 1e-6
"""Relative; sums may differ in their last bits from one machine to the next."""


def check_certificate(game: BitGame, allocation: Allocation) -> None:
    """Compute the certificate again from the game and the choices alone, and compare.

    Raises:
        DataError: the allocation is for another game, breaks the rules it names, or its certificate claims something
            that does not hold.
    """
    if allocation.strategies != game.strategies or allocation.tensors != game.tensors:
        raise DataError("the allocation is for another game: its strategies or tensors differ")
    if len(allocation.choices) != game.agents:
        raise DataError(f"the allocation is for another game: {len(allocation.choices)} agents, not {game.agents}")
    for name, order in game.permutations.items():
        if not (allocation.permutations[name] == order).all():
            raise DataError(f"the allocation is for another game: the column order of {name} differs")
    claimed = allocation.certificate
    played, choices = game, allocation.choices
    if "rules" in allocation.provenance:
        played, choices = Rules.from_json(allocation.provenance["rules"]).restrict(game, allocation.choices)
    found = certify(played, allocation.budget, choices, claimed.price)
    for name, value in asdict(claimed).items():
        truth = asdict(found)[name]
        # what is zero in exact arithmetic may come out as rounding noise of the damage it is a difference of
        slack = _TOLERANCE * max(1e-3 * found.predicted_damage, 1e-30) if isinstance(truth, float) else 0.0
        if not math.isclose(value, truth, rel_tol=_TOLERANCE, abs_tol=slack):
            raise DataError(f"the certificate does not hold: it claims {name} = {value}, the game says {truth}")
