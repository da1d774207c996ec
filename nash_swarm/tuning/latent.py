"""A packed matrix under training: real-valued scale codes and zero-points, rounded at use, and constant codes."""

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
from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.sharing import share_rows

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adam:
    """Hyperparameters of Adam (Kingma & Ba 2015, arXiv 1412.6980) on latent matrices.

    Attributes:
        scales: learning rate of scale codes, in sixteenths of an octave.
        zeros: learning rate of zero-points, in steps of the grid.
        beta1, beta2: decay rates of the moments.
        epsilon: added to the denominator, in nats per step of the grid.
    """

    scales: float
    zeros: float
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-10


class LatentMatrix:
    """Real-valued scale codes and zero-points of one packed matrix, with the moments of Adam.

    Args:
        packed: the initial matrix, not at `parameter` granularity.
        trainable: allocate moments; without them `step` cannot be called.

    Attributes:
        whole_scales: round scale codes to whole numbers, as the packed format stores them. Scales of neighbouring codes
            differ by 4.4 %, more than one training step changes, so the first steps use unrounded codes.
        slopes: sums over each group of the gradient with respect to the weights since the last step, float32 (rows,
            groups, 2): multiplied by the codebook values of the codes, and plain; `None` if there is none.

    Raises:
        UsageError: the matrix is at `parameter` granularity.
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
        self._ranges = ScaleRanges.holding(packed.scale_codes[: layout.rows], self.widths, layout)
        self._range = (self._ranges.first(self.widths), self._ranges.strides, self._ranges.places)
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
                self._levels.codes, self._levels.zeros, *self._range, self.whole_scales, self.layout.group_size,
                self._places, out,
            ),
        )  # fmt: skip
        return torch.from_numpy(out)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add a gradient with respect to the weights, (rows, columns), columns in the model's order.

        Only its sums over groups are kept, from which the gradients of scales and zero-points follow.
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
        """One step of Adam, after which the gradient is cleared; no step without a gradient."""
        from nash_swarm.tuning import latent_kernels as latent

        if self.slopes is None:
            return
        self._steps += 1
        unbias = [1 / (1 - decay**self._steps) for decay in (adam.beta1, adam.beta2)]
        settings = np.array([adam.beta1, adam.beta2, *unbias, adam.epsilon], np.float32)
        latent.step(
            self.scale_codes, self._scale_moments, self.zeros, self._zero_moments, self.widths, self._table,
            self._levels.zeros, *self._range, self.whole_scales, self.slopes,
            np.array([adam.scales, adam.zeros], np.float32),
            settings,
        )  # fmt: skip
        self.slopes = None

    def rounded(self) -> Rounded:
        """The matrix with scale codes and zero-points rounded to whole numbers. Codes are not copied."""
        tops = (1 << np.minimum(self.widths, 8).astype(np.int64)) - 1
        lowest, strides, most = self._range
        places = _whole(((self.scale_codes - lowest) / strides[:, None]).astype(np.float32), np.array(most - 1))
        return Rounded(
            self._codes,
            self._ranges.codes(places.astype(np.uint8), self.widths),
            _whole(self.zeros, tops).astype(np.uint8),
            self.base,
            self._halves,
        )


def _whole(values: Floats, top: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.clip(np.floor(values + np.float32(0.5)), 0, top)
