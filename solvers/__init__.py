"""Solvers: one algorithm a file, each a frozen dataclass that holds only hyperparameters."""

from nash_swarm.solvers.base import Play, Solver

__all__ = ["Play", "Solver"]
