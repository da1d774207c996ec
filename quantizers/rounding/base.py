"""What a quantizer is: it rounds one weight matrix to the widths an allocation gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native.layout import TensorLayout


@dataclass(frozen=True, eq=False)
class Rounded:
    """One matrix rounded to its grid, columns in stored order (activation order where the layout is `ordered`).

    The weight of row n, column k in group g is `(codes[n, k] - zeros[n, g]) * scale(scale_codes[n, g])`, see `grid`;
    where the width is 16 it is `halves[n, k]`. At `parameter` granularity see `formats.native.per_weight`.

    Attributes:
        codes: uint8 (rows, columns).
        scale_codes: uint8 (rows, groups), sixteenths of an octave below `base`.
        zeros: uint8 (rows, groups), integer zero-points.
        base: the largest scale, float32.
        halves: float16 (rows, columns), `None` if no tile is 16 bits wide.
    """

    codes: npt.NDArray[np.uint8]
    scale_codes: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    base: float
    halves: npt.NDArray[np.float16] | None = None


@dataclass(frozen=True)
class Quantizer(ABC):
    """Base of every rounding method. Subclasses are frozen dataclasses that hold hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]
    needs_hessian: ClassVar[bool]

    @abstractmethod
    def round(
        self,
        weight: npt.NDArray[np.float32],
        widths: npt.NDArray[np.uint8],
        layout: TensorLayout,
        hessian: npt.NDArray[np.float32] | None = None,
    ) -> Rounded:
        """Round `weight` to `widths`.

        Args:
            weight: (rows, columns) in stored column order; not changed.
            widths: bits of each tile, (row_tiles, groups); of each weight, (rows, columns), if `layout.per_weight`.
            layout: the matrix's layout.
            hessian: mean of x x^T over the calibration tokens, (columns, columns) in stored column order; only asked
                for if `needs_hessian`. `None` means unknown: then no column counts more than another.

        Raises:
            DataError: shapes or widths do not fit the layout.
        """
