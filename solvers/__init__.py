"""Solvers: one algorithm a file, each a frozen dataclass that holds only hyperparameters; their parts in `toolbox`."""

from nash_swarm.solvers.base import Callback, Play, Progress, Solver, ignore_progress

__all__ = ["Callback", "Play", "Progress", "Solver", "ignore_progress"]
