"""The factor of the inverse Hessian that carries rounding errors to the columns not yet rounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError

_RETRIES = 8


def inverse_factor(hessian: npt.NDArray[np.float32], damping: float) -> npt.NDArray[np.float32]:
    """Upper Cholesky factor U of (H + d I)^-1 = U^T U, as GPTQ uses it (Frantar et al., arXiv 2210.17323, step 3).

    The damping d is `damping` times the mean of H's diagonal and grows tenfold until the factorization succeeds.
    Columns that never saw an input get that mean on the diagonal, so that they are rounded on their own.

    Args:
        hessian: symmetric, (columns, columns).
        damping: relative to the mean of the diagonal.

    Raises:
        DataError: the Hessian is not finite, or no damping makes it positive definite.
    """
    matrix = torch.from_numpy(hessian).double()
    if not torch.isfinite(matrix).all():
        raise DataError("a Hessian holds NaN or infinite values: the calibration activations overflowed")
    diagonal = matrix.diagonal()
    mean = float(diagonal.mean())
    if mean <= 0:
        return np.eye(len(hessian), dtype=np.float32)
    diagonal[diagonal <= 0] = mean
    amount = damping * mean
    for _ in range(_RETRIES):
        damped = matrix.clone()
        damped.diagonal().add_(amount)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return upper.float().contiguous().numpy()
        amount = max(amount * 10, mean * 1e-6)
    raise DataError("a Hessian is not positive definite under any damping: the calibration activations are damaged")


def column_weights(factor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What an error in each column costs after the later columns have taken up what they can: 1 / U_jj^2."""
    return (1.0 / np.square(factor.diagonal())).astype(np.float32)
