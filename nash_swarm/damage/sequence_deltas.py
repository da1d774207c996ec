"""First-order change of each calibration window's loss if one agent is rounded: the raw material of coupling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.collect import watching_lookups
from nash_swarm.calibration.passes import Placed, stream_of
from nash_swarm.compiling import njit
from nash_swarm.damage.table import in_stored_order
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.models.experts import prepare
from nash_swarm.models.modes import inference
from nash_swarm.models.offload import require_in_memory
from nash_swarm.models.walk import Matrix, find_matrices
from nash_swarm.progress import working
from nash_swarm.quantizers.formats.native.grid import dequantize, row_widths
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout
from nash_swarm.quantizers.rounding.rtn import RoundToNearest
from nash_swarm.sharing import share_rows

Floats = npt.NDArray[np.float32]


def sequence_deltas(model: Any, game: BitGame, *, quiet: bool = False) -> Floats:
    """`<dL_w/dW_i, Q_s(W_i) - W_i>` for every window w, agent i and strategy s: float32 (windows, agents, strategies).

    L_w is the summed loss of window w in nats and Q_s rounds to nearest. One backward walk, block by block; the peak
    beyond the kept hidden states is the rounding errors of one block's matrices with every strategy.

    Args:
        model: the model the game was measured on, float32; not changed.
        game: a measured game with calibration tokens, not at `parameter` granularity.
        quiet: no progress bar.

    Raises:
        UsageError: the game has no tensors or calibration text, its agents are single weights, or the model's weights
            are on disk.
    """
    require_in_memory(model, "coupling")
    if not game.tensors or game.calibration is None:
        raise UsageError("coupling needs a game that was measured on a model with calibration text")
    layouts = {tensor.name: tensor for tensor in game.tensors if isinstance(tensor, TensorLayout)}
    if len(layouts) < len(game.tensors):
        raise UsageError("coupling is of layer, block and tile agents, not of single weights")
    model = prepare(model)
    matrices = [matrix for matrix in find_matrices(model) if matrix.name in layouts]
    tokens = torch.from_numpy(game.calibration.tokens.astype(np.int64))
    stream = stream_of(model, tokens, batch=1)
    deltas = np.zeros((len(tokens), game.agents, len(game.strategies)), np.float32)
    placed = Placed.on(stream, matrices)
    with (
        inference(model),
        working(len(stream.blocks) + 2, label="measure coupling", unit="block", quiet=quiet) as work,
    ):
        stream.keep_all()
        with _Deltas(stream, game, layouts, placed.outside, deltas).multiplying():
            stream.head_backward()
        work.update()
        for index in reversed(range(len(stream.blocks))):
            with _Deltas(stream, game, layouts, placed.inside[index], deltas).multiplying():
                stream.block_backward(index)
            work.update()
        # without a table in scope nothing before the first block asks for a gradient
        if placed.tables:
            with _Deltas(stream, game, layouts, placed.tables, deltas).looked_up():
                stream.embed_backward()
        work.update()
    return deltas


class _Deltas:
    """Adds each window's deltas of some matrices while one of its contexts is open; windows come one by one."""

    def __init__(
        self, stream: Any, game: BitGame, layouts: dict[str, TensorLayout], matrices: Sequence[Matrix], deltas: Floats
    ) -> None:
        self._stream, self._matrices, self._deltas = stream, matrices, deltas
        self._orders = game.permutations
        self._layouts = {matrix.name: layouts[matrix.name] for matrix in matrices}
        self._errors = {
            matrix.name: _rounding_errors(matrix, layouts[matrix.name], self._orders.get(matrix.name), game.strategies)
            for matrix in matrices
        }

    @contextmanager
    def multiplying(self) -> Iterator[None]:
        """Watch products."""
        handles = []
        for matrix in self._matrices:
            module = self._stream.model.get_submodule(matrix.head) if matrix.head else matrix.module
            handles.append(module.register_forward_hook(self._hook(matrix)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def looked_up(self) -> AbstractContextManager[Any]:
        """Watch look-ups."""
        return watching_lookups(self._matrices, self._look_up)

    def _columns(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Columns of (tokens, columns) in stored order."""
        flat, order = values.flatten(0, -2), self._orders.get(name)
        return flat if order is None else flat[:, torch.from_numpy(order)]

    def _add(self, name: str, window: int, gradient: torch.Tensor) -> None:
        layout, errors = self._layouts[name], self._errors[name]
        stored = np.ascontiguousarray(gradient.numpy())
        tiles = np.zeros((layout.row_tiles, layout.groups, len(errors)))
        share_rows(
            layout.row_tiles,
            lambda first, past: _tile_products(stored, errors, layout.group_size, tiles, first, past),
        )
        self._deltas[window, layout.span] += layout.gather(tiles).astype(np.float32)

    def _hook(self, matrix: Matrix) -> Any:
        def hook(_: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                return
            x, window = self._columns(matrix.name, args[0].detach()), self._stream.current
            output.register_hook(lambda gradient: self._add(matrix.name, window, gradient.flatten(0, -2).T @ x))

        return hook

    def _look_up(self, matrix: Matrix, index: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        window, leaf = self._stream.current, rows.detach().requires_grad_()

        def backward(gradient: torch.Tensor) -> None:
            flat = self._columns(matrix.name, gradient)
            self._add(matrix.name, window, torch.zeros(*matrix.shape).index_add_(0, index.flatten(), flat))

        leaf.register_hook(backward)
        return leaf


def _rounding_errors(matrix: Matrix, layout: TensorLayout, order: Any, strategies: tuple[int, ...]) -> Floats:
    """Q_s(W) - W in stored column order, float32 (strategies, rows, columns)."""
    weight = in_stored_order(matrix.weight().numpy(), order)
    errors = np.zeros((len(strategies), *weight.shape), np.float32)
    for place, bits in enumerate(strategies):
        if bits != HALF:
            widths = np.full((layout.row_tiles, layout.groups), bits, np.uint8)
            got = RoundToNearest().round(weight, widths, layout)
            rounded = dequantize(
                got.codes, got.scale_codes, got.zeros, got.base, row_widths(widths, layout), layout
            )  # fmt: skip
            np.subtract(rounded, weight, out=errors[place])
    return errors


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _tile_products(
    gradient: Floats, errors: Floats, group_size: int, out: npt.NDArray[np.float64], first: int, past: int
) -> None:
    """Sum of gradient * error over each tile: out float64 (row_tiles, groups, strategies), tiles `first:past`."""
    rows, columns = gradient.shape
    for tile in range(first, past):
        for n in range(tile * 16, min(tile * 16 + 16, rows)):
            for g in range(out.shape[1]):
                for s in range(errors.shape[0]):
                    total = np.float32(0.0)
                    for k in range(g * group_size, min((g + 1) * group_size, columns)):
                        total += gradient[n, k] * errors[s, n, k]
                    out[tile, g, s] += total
