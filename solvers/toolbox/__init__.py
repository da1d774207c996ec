"""Parts of solvers, for those of this package and of others.

All work on `interaction_of(game)`, whether its agents are coupled or not.
"""

from nash_swarm.game.interactions import interaction_of
from nash_swarm.solvers.toolbox.filling import close_bracket, fill, immaterial, repair, spend
from nash_swarm.solvers.toolbox.responding import Sweep, respond
from nash_swarm.solvers.toolbox.singles import never_worse, single_memory
from nash_swarm.solvers.toolbox.supporting import supporting_price
from nash_swarm.solvers.toolbox.trading import trade

__all__ = [
    "Sweep",
    "close_bracket",
    "fill",
    "immaterial",
    "interaction_of",
    "never_worse",
    "repair",
    "respond",
    "single_memory",
    "spend",
    "supporting_price",
    "trade",
]
