"""GPTQ: column by column, each column's rounding error is taken up by the columns still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.base import Layout, check_rounding
from nash_swarm.quantizers.formats.native.grid import SHRINKS
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.rounding.columns import round_columns
from nash_swarm.quantizers.rounding.hessian import inverse_factor


@dataclass(frozen=True)
class Gptq(Quantizer):
    """Error-compensated rounding (Frantar et al. 2023, arXiv 2210.17323) with a width per agent inside the matrix.

    Groups are formed in the stored column order (activation order); scales are fitted when a group is reached, on the
    weights as the errors of earlier groups have left them.

    Attributes:
        damping: added to the Hessian's diagonal, relative to its mean; grows until the factorization succeeds.
        shrinks: shares of the group's range that the scale search tries.
    """

    name: ClassVar[str] = "gptq"
    summary: ClassVar[str] = "error-compensated rounding (GPTQ) in activation order"
    needs_hessian: ClassVar[bool] = True

    damping: float = 0.01
    shrinks: tuple[float, ...] = SHRINKS

    def round(
        self,
        weight: npt.NDArray[np.float32],
        widths: npt.NDArray[np.uint8],
        layout: Layout,
        hessian: npt.NDArray[np.float32] | None = None,
    ) -> Any:
        """See `Quantizer.round`."""
        check_rounding(weight, widths, layout, hessian)
        if hessian is None:
            return round_columns(weight, widths, layout, None, np.ones(layout.columns, np.float32), self.shrinks)
        factor = inverse_factor(hessian, self.damping)
        costs = (1.0 / np.square(factor.diagonal())).astype(np.float32)
        return round_columns(weight, widths, layout, factor, costs, self.shrinks)
