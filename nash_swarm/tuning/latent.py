"""A packed matrix while it is tuned: scale codes and zero-points are real numbers, rounded when used; codes stay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.base import Packed
from nash_swarm.quantizers.formats.native import n16k32
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import Rounded, row_widths, scale_table
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleWindows
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_rows

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adam:
    """Settings of a step of Adam on latent matrices.

    Attributes:
        scales: learning rate of scale codes, in sixteenths of an octave.
        zeros: learning rate of zero-points, in steps of the grid.
        beta1, beta2: decay of the moments.
        epsilon: against division by zero, in nats per step of the grid.
    """

    scales: float
    zeros: float
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-10


class LatentMatrix:
    """Real-valued scale codes and zero-points of one packed matrix, with the moments of Adam.

    Args:
        packed: the matrix to start from, not at `parameter` granularity.
        trainable: keep moments; without them `step` cannot be called.

    Attributes:
        whole_scales: multiply with whole scale codes, as the packed format has them. Between them scales are 4.4 %
            apart: steps of training are smaller, and in the beginning should not be lost.
        slopes: the gradient since the last step, float32 (rows, groups, 2): summed over the levels of each group's
            codes, and over ones; `None` if there is none.

    Raises:
        UsageError: every weight has a width of its own.
    """

    def __init__(self, packed: Packed, *, trainable: bool = True) -> None:
        if not isinstance(packed, PackedTensor):
            raise UsageError("parameter granularity cannot be tuned; use layer, block or tile")
        layout = packed.layout
        self.layout, self.base = layout, packed.base
        self.widths = row_widths(packed.widths, layout)
        self._order = packed.permutation.astype(np.int32)
        self._places = np.argsort(packed.permutation).astype(np.int32)
        codes, halves = n16k32.unpack_codes(packed.buffer[: packed.code_bytes], packed.widths, layout)
        self._codes = np.ascontiguousarray(codes)
        self._halves = halves if (self.widths == HALF).any() else None
        self._exact = np.zeros((0, layout.columns), np.float32) if self._halves is None else halves.astype(np.float32)
        self.scale_codes: Floats = packed.scale_codes[: layout.rows].astype(np.float32)
        self.zeros: Floats = packed.zeros[: layout.rows].astype(np.float32)
        self.whole_scales = True
        self._windows = ScaleWindows.holding(packed.scale_codes[: layout.rows], self.widths, layout)
        self._window = (self._windows.first(self.widths), self._windows.strides, self._windows.places)
        self._table, self._levels = scale_table(self.base), level_tables(layout.levels)
        self.slopes: Floats | None = None
        self._steps = 0
        if trainable:
            self._scale_moments = np.zeros((*self.zeros.shape, 2), np.float32)
            self._zero_moments = np.zeros((*self.zeros.shape, 2), np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.layout.rows, self.layout.columns

    def weight(self) -> torch.Tensor:
        """The rounded weights, float32 (rows, columns), columns in the model's order."""
        from nash_swarm.tuning import latent_kernels as latent

        out = np.empty(self.shape, np.float32)
        share_rows(
            len(out),
            partial(
                latent.weights, self._codes, self._exact, self.scale_codes, self.zeros, self.widths, self._table,
                self._levels.codes, self._levels.zeros, *self._window, self.whole_scales, self.layout.group_size,
                self._places, out,
            ),
        )  # fmt: skip
        return torch.from_numpy(out)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add a gradient of the loss by the weights, (rows, columns), columns in the model's order.

        Of a gradient only its sums over groups are kept, which is all that scales and zero-points need.
        """
        from nash_swarm.tuning import latent_kernels as latent

        if self.slopes is None:
            self.slopes = np.zeros((*self.zeros.shape, 2), np.float32)
        share_rows(
            len(gradient),
            partial(
                latent.add_slopes, self._codes, self.widths, self._levels.codes, self.layout.group_size, self._order,
                gradient.float().contiguous().numpy(), self.slopes,
            ),
        )  # fmt: skip

    def step(self, adam: Adam) -> None:
        """One step down the gradient, which is then forgotten; nothing if there is none."""
        from nash_swarm.tuning import latent_kernels as latent

        if self.slopes is None:
            return
        self._steps += 1
        unbias = [1 / (1 - decay**self._steps) for decay in (adam.beta1, adam.beta2)]
        settings = np.array([adam.beta1, adam.beta2, *unbias, adam.epsilon], np.float32)
        latent.step(
            self.scale_codes, self._scale_moments, self.zeros, self._zero_moments, self.widths, self._table,
            self._levels.zeros, *self._window, self.whole_scales, self.slopes,
            np.array([adam.scales, adam.zeros], np.float32),
            settings,
        )  # fmt: skip
        self.slopes = None

    def rounded(self) -> Rounded:
        """The nearest whole numbers: what `weight` multiplies with. Codes are not copied."""
        tops = (1 << np.minimum(self.widths, 8).astype(np.int64)) - 1
        lowest, strides, most = self._window
        places = _whole(((self.scale_codes - lowest) / strides[:, None]).astype(np.float32), np.array(most - 1))
        return Rounded(
            self._codes,
            self._windows.codes(places.astype(np.uint8), self.widths),
            _whole(self.zeros, tops).astype(np.uint8),
            self.base,
            self._halves,
        )


def _whole(values: Floats, top: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.clip(np.floor(values + np.float32(0.5)), 0, top)
