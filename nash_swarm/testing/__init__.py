"""What third parties need to hold their own plug-ins to the contract that ours pass."""

from nash_swarm.testing.backend_contract import check_backend
from nash_swarm.testing.quantizer_contract import check_quantizer
from nash_swarm.testing.solver_contract import check_solver

__all__ = ["check_backend", "check_quantizer", "check_solver"]
