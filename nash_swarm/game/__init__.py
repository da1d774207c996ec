"""The game: who plays (agents), for what (bits of a budget), and what came out (an allocation with its certificate)."""

from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.coupling import Coupling

__all__ = [
    "Allocation",
    "BitGame",
    "Budget",
    "Calibration",
    "Certificate",
    "Coupling",
]
