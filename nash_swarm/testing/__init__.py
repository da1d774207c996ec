"""What third parties need to hold their own plug-ins to the contract that ours pass."""

from nash_swarm.testing.solver_contract import check_solver

__all__ = ["check_solver"]
