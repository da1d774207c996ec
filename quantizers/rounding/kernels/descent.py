"""Coordinate descent on the codes of a rounded matrix; the kernel only sees arrays that `rounding.descent` made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.kernels.codebook_fitting import nearest_code

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
def descend(
    codes: Bytes, slopes: Floats, hessian: Floats, scales: Floats, widths: Bytes, levels: Floats, nearest: Bytes,
    group_size: int, sweeps: int, first: int, past: int,
) -> None:  # fmt: skip
    """Move the codes of rows `first:past`, one after the other, to where their row's error is least.

    codes: uint8 (rows, columns). slopes: float32 (rows, columns), errors times the Hessian; both change in place.
    hessian: float32 (columns, columns), symmetric, of positive diagonal. scales: float32 (rows, groups). widths: uint8
    (rows, groups); codes of width 16 stay. levels, nearest: of `codebooks.LevelTables`. sweeps: at most so many passes
    over a row.
    """
    columns = codes.shape[1]
    for n in range(first, past):
        for _ in range(sweeps):
            moved = False
            for g in range(widths.shape[1]):
                if widths[n, g] == 16:
                    continue
                scale = scales[n, g]
                values, closest = levels[widths[n, g]], nearest[widths[n, g]]
                for k in range(g * group_size, min((g + 1) * group_size, columns)):
                    step = -slopes[n, k] / (hessian[k, k] * scale)
                    # no levels lie closer; NaN, of numbers at the end of single precision, stays too
                    if not abs(step) > np.float32(0.5):
                        continue
                    old = int(np.int64(codes[n, k]))
                    step = min(np.float32(256.0), max(np.float32(-256.0), step))
                    new = nearest_code(values[old] + step, closest)
                    if new == old:
                        continue
                    codes[n, k] = np.uint8(new)
                    change = (values[new] - values[old]) * scale
                    for j in range(columns):
                        slopes[n, j] += change * hessian[k, j]
                    moved = True
            if not moved:
                break
