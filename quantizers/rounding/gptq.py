"""GPTQ: column by column, each column's rounding error is taken up by the columns still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.quantizers.formats.base import Floats
from nash_swarm.quantizers.rounding.hessian import inverse_factor
from nash_swarm.quantizers.rounding.rtn import RoundToNearest


@dataclass(frozen=True)
class Gptq(RoundToNearest):
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

    def column_costs(self, hessian: Floats) -> tuple[Floats | None, Floats]:
        """See `RoundToNearest.column_costs`."""
        factor = inverse_factor(hessian, self.damping)
        return factor, (1.0 / np.square(factor.diagonal())).astype(np.float32)
