"""Measure, solve and pack one matrix, with plain arrays: all of nash-swarm on one page.

python examples/minimal.py
"""

import numpy as np

from nash_swarm.damage.base import Sensitivity
from nash_swarm.damage.table import damage_table
from nash_swarm.game import BitGame, Budget
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.rounding.gptq import Gptq
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.uniform import Uniform

WIDTHS = (2, 3, 4, 5, 6, 8)
BITS = 3.5


def make(rows=192, columns=512, tokens=4000, seed=0):
    """A weight matrix (rows, columns) and inputs (tokens, columns), a few of which are far larger than the others."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, columns)) * rng.lognormal(0, 0.5, (rows, 1))
    inputs = rng.normal(size=(tokens, columns)) * rng.lognormal(0, 1, columns)
    return weight.astype(np.float32), inputs.astype(np.float32)


def measure(weight, inputs, layout):
    """The game: what each agent (a tile of 16 rows x 32 columns) costs with each width, as damage and as bits.

    An error in column j of the weight is multiplied with input j, so it costs the mean of its square. `damage_table`
    rounds each tile to each width and adds the squared errors up, times what they cost.
    """
    moments = np.square(inputs).mean(axis=0)
    sensitivity = Sensitivity(rows=np.ones((1, len(weight)), np.float32), columns=moments[None])
    return BitGame(
        WIDTHS,
        damage_table(weight, sensitivity, layout, WIDTHS),
        layout.memory(WIDTHS),
        fixed_bits=8 * layout.fixed_bytes(len(WIDTHS)),
        parameters=layout.weights,
        tensors=(layout,),
    )


def solve(game, solver):
    """A width for each agent, within the budget, with a certificate of how good that is."""
    allocation = solver.solve(game, Budget.of_bits(BITS, game.parameters))
    proof = allocation.certificate
    print(f"{allocation.solver}: {allocation.histogram()} tiles by width, gap to the optimum {proof.gap:.2%}")
    return allocation


def pack(weight, inputs, layout, allocation):
    """The matrix as bytes: rounded column by column, later columns making up for errors in earlier ones (GPTQ)."""
    widths = allocation.widths(layout)  # of each tile
    hessian = inputs.T @ inputs / np.float32(len(inputs))
    rounded = Gptq().round(weight, widths, layout, hessian)
    agents = np.array(WIDTHS, np.uint8)[allocation.choices]
    return PackedTensor.pack(rounded, agents, layout, None, WIDTHS).buffer


def error(buffer, weight, inputs, layout):
    """The relative squared error of the outputs of the matrix that is read back from the bytes."""
    again = PackedTensor.read(buffer, layout, WIDTHS).dequantize()
    return float(np.square(inputs @ (again - weight).T).sum() / np.square(inputs @ weight.T).sum())


def main():
    """Pack one matrix by two solvers; returns bytes and error of each."""
    weight, inputs = make()
    layout = cut("weight", "linear", weight.shape, "tile", group_size=32, levels="normal")
    game = measure(weight, inputs, layout)
    found = {}
    for solver in (Lagrangian(), Uniform()):
        allocation = solve(game, solver)
        buffer = pack(weight, inputs, layout, allocation)
        assert 8 * len(buffer) == allocation.certificate.used_bits <= allocation.budget.total_bits
        found[solver.name] = len(buffer), error(buffer, weight, inputs, layout)
        print(f"  {len(buffer)} bytes, relative error {found[solver.name][1]:.4f}")
    return found


if __name__ == "__main__":
    main()
