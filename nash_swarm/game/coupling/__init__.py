"""Agents that are coupled by vectors: the only room that knows how.

`vectors` holds what couples a game's agents and is written to files; `coupled` answers marginal costs, with the best
pair of changes in `exchange` and the lower bound in `relaxation`.
"""

from nash_swarm.game.coupling.vectors import Coupling

__all__ = ["Coupling"]
