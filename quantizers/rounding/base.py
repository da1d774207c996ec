"""What a quantizer is: it rounds one weight matrix to the widths an allocation gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.base import Layout


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
        layout: Layout,
        hessian: npt.NDArray[np.float32] | None = None,
    ) -> Any:
        """Round `weight` to `widths`; returns what the layout's format packs.

        Args:
            weight: (rows, columns) in stored column order; not changed.
            widths: bits, uint8, one for each of the layout's `units`: (row_tiles, groups) of the native format.
            layout: the matrix's layout.
            hessian: mean of x x^T over the calibration tokens, (columns, columns) in stored column order; only asked
                for if `needs_hessian`. `None` means unknown: then no column counts more than another.

        Raises:
            DataError: shapes or widths do not fit the layout.
        """
