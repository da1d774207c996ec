"""A packed matrix while it is tuned: its codes, scale codes and zero-points are real numbers, rounded when used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import UsageError
from nash_swarm.game.layout import HALF
from nash_swarm.quantizers.base import Rounded
from nash_swarm.quantizers.grid import row_widths, scale_table
from nash_swarm.quantizers.kernels.threads import share_rows
from nash_swarm.quantizers.levels import level_tables
from nash_swarm.quantizers.packing import PackedTensor, n16k32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adam:
    """Settings of a step of Adam on latent matrices.

    Attributes:
        codes: learning rate of codes, in steps of the grid; 0 keeps the codes.
        scales: learning rate of scale codes, in sixteenths of an octave.
        zeros: learning rate of zero-points, in steps of the grid.
        beta1, beta2: decay of the moments.
        epsilon: against division by zero, in nats per step of the grid.
    """

    codes: float
    scales: float
    zeros: float
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-10


class LatentMatrix:
    """Real-valued codes, scale codes and zero-points of one packed matrix, with the moments of Adam.

    Args:
        packed: the matrix to start from, not at `parameter` granularity. Codes start in the middle of their cells, and
            so only what many steps agree on crosses into the next one. (Starting where the original weights lie, which
            is near an edge for many, was far worse: the first steps, whose directions are mostly noise, flip those.)
        trainable: keep moments; without them `step` cannot be called.

    Attributes:
        whole_scales: multiply with whole scale codes, as the packed format has them. Between them scales are 4.4 %
            apart: steps of training are smaller, and in the beginning should not be lost.

    Raises:
        UsageError: every weight has a width of its own.
    """

    def __init__(self, packed: PackedTensor, *, trainable: bool = True) -> None:
        layout = packed.layout
        if layout.per_weight:
            raise UsageError("parameter granularity cannot be tuned; use layer, block or tile")
        self.layout, self.base, self.order = layout, packed.base, packed.permutation
        self.widths = row_widths(packed.widths, layout)
        codes, halves = n16k32.unpack_codes(packed.buffer[: packed.code_bytes], packed.widths, layout)
        self._half = np.repeat(self.widths == HALF, layout.group_size, axis=1)[:, : layout.columns]
        self.codes: Floats = np.where(self._half, halves, codes).astype(np.float32)
        self.scale_codes: Floats = packed.scale_codes[: layout.rows].astype(np.float32)
        self.zeros: Floats = packed.zeros[: layout.rows].astype(np.float32)
        self.gradient: torch.Tensor | None = None
        self.whole_scales = True
        self._table, self._levels = scale_table(self.base), level_tables(layout.levels)
        self._steps = 0
        if trainable:
            self._code_moments = np.zeros((2, *self.codes.shape), np.float32)
            self._scale_moments = np.zeros((*self.zeros.shape, 2), np.float32)
            self._zero_moments = np.zeros((*self.zeros.shape, 2), np.float32)

    def weight(self) -> torch.Tensor:
        """The rounded weights, float32 (rows, columns), columns in the model's order."""
        from nash_swarm.quantizers.kernels import latent

        out = np.empty(self.codes.shape, np.float32)
        share_rows(
            len(out),
            partial(
                latent.weights, self.codes, self.scale_codes, self.zeros, self.widths, self._table,
                self._levels.codes, self._levels.zeros, self.whole_scales, self.layout.group_size, self.order, out,
            ),
        )  # fmt: skip
        return torch.from_numpy(out)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add to the gradient of the loss by the weights, (rows, columns), columns in the model's order."""
        self.gradient = gradient if self.gradient is None else self.gradient.add_(gradient)

    def step(self, adam: Adam) -> None:
        """One step down the gradient, which is then forgotten; nothing if there is none."""
        from nash_swarm.quantizers.kernels import latent

        if self.gradient is None:
            return
        self._steps += 1
        unbias = [1 / (1 - decay**self._steps) for decay in (adam.beta1, adam.beta2)]
        settings = np.array([adam.beta1, adam.beta2, *unbias, adam.epsilon], np.float32)
        gradient = self.gradient.float().contiguous().numpy()
        rates = np.array([adam.codes, adam.scales, adam.zeros], np.float32)
        share_rows(
            len(gradient),
            partial(
                latent.step, self.codes, self._code_moments, self.scale_codes, self._scale_moments, self.zeros,
                self._zero_moments, self.widths, self._table, self._levels.codes, self._levels.zeros,
                self.whole_scales, self.layout.group_size, self.order, gradient, rates, settings,
            ),
        )  # fmt: skip
        self.gradient = None

    def rounded(self) -> Rounded:
        """The nearest whole numbers: what `weight` multiplies with."""
        tops = (1 << np.minimum(self.widths, 8).astype(np.int64)) - 1
        by_column = np.repeat(tops, self.layout.group_size, axis=1)[:, : self.layout.columns]
        halves = None
        if self._half.any():
            halves = np.where(self._half, self.codes, 0).astype(np.float16)
        return Rounded(
            np.where(self._half, 0, _whole(self.codes, by_column)).astype(np.uint8),
            _whole(self.scale_codes, np.array(255)).astype(np.uint8),
            _whole(self.zeros, tops).astype(np.uint8),
            self.base,
            halves,
        )


def _whole(values: Floats, top: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.clip(np.floor(values + np.float32(0.5)), 0, top)
