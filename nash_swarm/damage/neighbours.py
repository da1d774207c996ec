"""Which columns should stand side by side where neighbours interact, and how much they then do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.game.stencil import LIMIT
from nash_swarm.quantizers.rounding.hessian import reordered

Hessian = npt.NDArray[np.floating]


def chain_order(hessian: Hessian) -> npt.NDArray[np.int64]:
    """An order of columns in which each stands beside the most correlated one that is still free, int64 (columns,).

    It begins with the column of the largest energy: a greedy path through the graph of correlations, since the heaviest
    one is as hard to find as a travelling salesman's.

    Args:
        hessian: (columns, columns), second moments of a matrix's inputs.
    """
    energy = hessian.diagonal().astype(np.float64)
    root = np.sqrt(np.maximum(energy, 1e-30))
    free = np.ones(len(energy), np.bool_)
    order = np.empty(len(energy), np.int64)
    order[0] = int(np.argmax(energy))
    for place in range(1, len(order)):
        last = order[place - 1]
        free[last] = False
        order[place] = int(np.argmax(np.where(free, np.abs(hessian[last]) / root, -1)))
    return order


def neighbour_correlation(hessian: Hessian) -> npt.NDArray[np.float32]:
    """Correlation of each column's input with the next one's, float32 (columns,); 0 for the last one and dead inputs.

    Clipped to what a `Stencil` allows.

    Args:
        hessian: (columns, columns), second moments of a matrix's inputs, columns in stored order.
    """
    energy = hessian.diagonal().astype(np.float64)
    scale = np.sqrt(energy[:-1] * energy[1:])
    beside = hessian.diagonal(1).astype(np.float64)
    found = np.divide(beside, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.append(np.clip(found, -LIMIT, LIMIT), 0).astype(np.float32)


def neighbours(statistics: Statistics, columns: int) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.float32]]:
    """The column order of a matrix whose agents are coupled along rows (`None` if it only looks up), and correlations.

    A matrix that an embedding looks up has none: what its errors do to one another there is not collected, and for a
    tied one it would not be the same in all rows.

    Args:
        statistics: what was seen of the matrix.
        columns: how many it has.
    """
    hessian = statistics.hessian()
    if hessian is None:
        return None, np.zeros(columns, np.float32)
    order = chain_order(hessian) if statistics.order is None else statistics.order
    if statistics.lookups is not None:
        return order, np.zeros(len(order), np.float32)
    return order, neighbour_correlation(reordered(hessian, order))
