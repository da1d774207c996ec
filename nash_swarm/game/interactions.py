"""A game as solvers and certificates see it."""

from __future__ import annotations

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling.coupled import Coupled
from nash_swarm.game.interaction import Interaction, Separate
from nash_swarm.game.tables import Tables


def interaction_of(game: BitGame) -> Interaction:
    """What the agents of `game` do to one another: `Separate` without a coupling."""
    return Separate.of(game) if game.coupling is None else Coupled.of(Tables.of(game), game.coupling)
