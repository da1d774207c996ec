"""The solver keeps the contract of nash-swarm's own."""

from swarm_descent.solver import Descent

from nash_swarm.testing import check_solver


def test_the_contract() -> None:
    check_solver(Descent(), examples=20)
