"""Contracts of plug-ins, which third parties' tests can call as ours do."""

from nash_swarm.testing.backend_contract import check_backend
from nash_swarm.testing.damage_contract import check_damage
from nash_swarm.testing.format_contract import check_format
from nash_swarm.testing.quantizer_contract import check_quantizer
from nash_swarm.testing.solver_contract import check_solver

__all__ = ["check_backend", "check_damage", "check_format", "check_quantizer", "check_solver"]
