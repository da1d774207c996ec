"""The factor of the inverse Hessian that carries rounding errors to the columns not yet rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError

_RETRIES = 8
_STRIP = 256
"""Columns of an inverse that are solved for at once."""


def inverse_factor(hessian: npt.NDArray[np.float32], damping: float) -> npt.NDArray[np.float32]:
    """Upper Cholesky factor U of (H + d I)^-1 = U^T U, as GPTQ uses it (Frantar et al., arXiv 2210.17323, step 3).

    Computed without the inverse: H + d I = M M^T with M upper triangular (the Cholesky factor from the last column
    backwards), and U = M^-1.

    Args:
        hessian: symmetric, (columns, columns).
        damping: d relative to the mean of the diagonal; see `_backward_factor`.

    Raises:
        DataError: the Hessian is not finite, or no damping makes it positive definite.
    """
    factor = _backward_factor(hessian, damping)
    size = len(factor)
    inverse = torch.zeros(size, size)
    with _one_thread():
        # column j of the inverse is zero below j: a strip of columns needs only the rows and columns up to its end
        for start in range(0, size, _STRIP):
            stop = min(start + _STRIP, size)
            identity = torch.eye(stop, dtype=factor.dtype)[:, start:]
            inverse[:stop, start:stop] = torch.linalg.solve_triangular(factor[:stop, :stop], identity, upper=True)
    return inverse.numpy()


def column_weights(hessian: npt.NDArray[np.float32], damping: float) -> npt.NDArray[np.float32]:
    """What an error in each column costs after the later columns have taken up what they can: 1 / U_jj^2.

    Raises:
        DataError: as `inverse_factor`.
    """
    return _backward_factor(hessian, damping).diagonal().square().float().numpy()


def reordered(hessian: npt.NDArray[np.float32], order: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The Hessian, (columns, columns), of columns that are stored in `order`."""
    # several times as fast as one look-up by both
    return hessian.take(order, 0).take(order, 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Some libraries factorize in another order on more threads, and rounding follows the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _backward_factor(hessian: npt.NDArray[np.float32], damping: float) -> torch.Tensor:
    """Upper triangular M with M M^T = H + d I, float64.

    d is `damping` times the mean of H's diagonal and grows tenfold until the factorization succeeds. Columns that never
    saw an input get that mean on the diagonal, so that they are rounded on their own.
    """
    matrix = torch.from_numpy(hessian).double()
    if not torch.isfinite(matrix).all():
        raise DataError("a Hessian holds NaN or infinite values: the calibration activations overflowed")
    diagonal = matrix.diagonal()
    mean = float(diagonal.mean())
    if mean <= 0:
        return torch.eye(len(hessian), dtype=torch.float64)
    diagonal[diagonal <= 0] = mean
    amount = damping * mean
    for _ in range(_RETRIES):
        damped = matrix.flip(0, 1)
        damped.diagonal().add_(amount)
        with _one_thread():
            lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            return lower.flip(0, 1).contiguous()
        amount = max(amount * 10, mean * 1e-6)
    raise DataError("a Hessian is not positive definite under any damping: the calibration activations are damaged")
