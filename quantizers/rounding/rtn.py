"""Round to nearest, with a search for the scale that clips best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.base import Floats, Layout
from nash_swarm.quantizers.formats.native.grid import SHRINKS
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.rounding.columns import check_rounding, round_columns


@dataclass(frozen=True)
class RoundToNearest(Quantizer):
    """Every weight goes to the nearest level; each row and group takes the clipping with the least squared error.

    The error is weighted by the diagonal of the Hessian where there is one (the importance matrix of llama.cpp).

    Attributes:
        shrinks: shares of the group's range that the scale search tries.
    """

    name: ClassVar[str] = "rtn"
    summary: ClassVar[str] = "round to nearest with scale search; no calibration pass"
    needs_hessian: ClassVar[bool] = False

    shrinks: tuple[float, ...] = field(default=SHRINKS, kw_only=True)

    def round(
        self,
        weight: npt.NDArray[np.float32],
        widths: npt.NDArray[np.uint8],
        layout: Layout,
        hessian: npt.NDArray[np.float32] | None = None,
    ) -> Any:
        """See `Quantizer.round`."""
        check_rounding(weight, widths, layout, hessian)
        if hessian is None or hessian.diagonal().max() <= 0:
            factor, costs = None, np.ones(layout.columns, np.float32)
        else:
            factor, costs = self.column_costs(hessian)
        return round_columns(weight, widths, layout, factor, costs, self.shrinks)

    def column_costs(self, hessian: Floats) -> tuple[Floats | None, Floats]:
        """The factor that errors are passed on with, see `round_columns`, and the cost of an error in each column."""
        return None, np.ascontiguousarray(hessian.diagonal(), np.float32)
