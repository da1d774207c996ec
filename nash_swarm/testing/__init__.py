"""What third parties need to hold their own plug-ins to the contract that ours pass."""

from nash_swarm.testing.format_contract import check_format
from nash_swarm.testing.quantizer_contract import check_quantizer
from nash_swarm.testing.solver_contract import check_solver

__all__ = ["check_format", "check_quantizer", "check_solver"]
