"""GPTQ, then coordinate descent: every code is moved as long as that lowers the layer's error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import dequantize, row_widths, scale_table
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout
from nash_swarm.quantizers.rounding.gptq import Gptq
from nash_swarm.quantizers.rounding.kernels import descent
from nash_swarm.sharing import share_rows


@dataclass(frozen=True)
class Descent(Gptq):
    """GPTQ and then coordinate descent on its codes (QuantEase, Behdin et al. 2023, arXiv 2309.01885; CDQuant, Nair and
    Suggala 2024, arXiv 2406.17542), scales and zero-points fixed.

    GPTQ never looks back at a column: each code is the best one for what was still to come. Here codes are visited
    again and moved to where `(Q - W) (H + d I) (Q - W)^T` of their row is least, all others fixed. It never rises, and
    at the end no single code can lower it. Codes of other formats than the native one stay as GPTQ has left them.

    Attributes:
        damping, shrinks: as `Gptq`, with more of both: rounding that follows a Hessian this closely follows its noise
            too.
        sweeps: passes over all codes of a row at most; it ends early when a pass moves none.
    """

    name: ClassVar[str] = "descent"
    summary: ClassVar[str] = "GPTQ, then coordinate descent on the codes"

    damping: float = 0.1
    shrinks: tuple[float, ...] = (1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
    sweeps: int = 20

    def __post_init__(self) -> None:
        if self.sweeps < 0:
            raise UsageError(f"descent needs sweeps >= 0, not {self.sweeps}")

    def round(
        self,
        weight: npt.NDArray[np.float32],
        widths: npt.NDArray[np.uint8],
        layout: Layout,
        hessian: npt.NDArray[np.float32] | None = None,
    ) -> Any:
        """See `Quantizer.round`."""
        rounded = super().round(weight, widths, layout, hessian)
        if hessian is None or not isinstance(layout, TensorLayout):
            return rounded
        damped = np.array(hessian, np.float32, order="C")
        diagonal = np.einsum("ii->i", damped)
        mean = diagonal.mean()
        if mean <= 0:
            return rounded
        diagonal[diagonal <= 0] = mean
        diagonal += np.float32(self.damping) * mean
        by_row = row_widths(widths, layout)
        errors = dequantize(rounded.codes, rounded.scale_codes, rounded.zeros, rounded.base, by_row, layout) - weight
        if rounded.halves is not None:
            exact = np.repeat(by_row == HALF, layout.group_size, axis=1)[:, : layout.columns]
            errors = np.where(exact, rounded.halves.astype(np.float32) - weight, errors)
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = np.ascontiguousarray(errors @ damped)
        codes = rounded.codes.copy()
        scales = scale_table(rounded.base)[rounded.scale_codes]
        tables = level_tables(layout.levels)
        share_rows(
            layout.rows,
            partial(
                descent.descend, codes, slopes, damped, scales, by_row, tables.codes, tables.nearest,
                layout.group_size, self.sweeps,
            ),
        )  # fmt: skip
        return replace(rounded, codes=codes)
