"""Stage three: from an allocation to a working model with packed weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from nash_swarm import arguments, registry
from nash_swarm.artifacts.accounting import dense_tensors, half_dtype
from nash_swarm.artifacts.facts import PackedModel
from nash_swarm.artifacts.packed_config import PackedConfig
from nash_swarm.calibration.collect import collecting
from nash_swarm.calibration.passes import Placed, stream_of
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.calibration.streaming import check_tokens
from nash_swarm.damage.overflow import check_statistics
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import Calibration
from nash_swarm.models.modes import inference
from nash_swarm.models.offload import checkpoint_of, load_for_good, mapped, resident
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.models.walk import Matrix, check_weights, count_parameters, find_matrices
from nash_swarm.names import ACTIVATIONS, DEFAULT_QUANTIZER
from nash_swarm.progress import Work, working
from nash_swarm.quantizers.formats.base import layouts_of
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.rounding.hessian import reordered
from nash_swarm.quantizers.runtime.assemble import build_module, build_tied
from nash_swarm.quantizers.runtime.modules import set_activations


def pack(
    model: Any,
    allocation: Allocation,
    *,
    quantizer: str | Quantizer = DEFAULT_QUANTIZER,
    calibration: Calibration | None = None,
    quiet: bool = False,
) -> Any:
    """Round and pack every matrix of the allocation; everything else is rounded to 16 bits.

    Matrices are rounded block by block on the activations of the already packed blocks before them, so that each makes
    up for what went wrong earlier (Frantar et al. 2023, section 4).

    Args:
        model: the original model in float32, or its `ReferenceModel`; not changed.
        allocation: from `solve`, on a game measured on this model.
        quantizer: name or instance of a rounding method.
        calibration: windows that matrices are rounded with; those that the game was measured on if not given.
        quiet: no progress bar.

    Raises:
        UsageError: unknown quantizer, or an allocation of a synthetic game.
        DataError: the allocation belongs to another model, or the weights are not finite.
        Overflow: the inputs of a matrix are too large for their squares to be finite.
    """
    reference = ReferenceModel.of(model)
    arguments.instance("the allocation", allocation, Allocation, "from solve or load_allocation")
    if calibration is not None:
        arguments.instance("calibration", calibration, Calibration, "tokens and where they are from")
    rounding: Quantizer = registry.resolve("quantizers", quantizer, "round")
    packed = round_model(reference, allocation, rounding, calibration or allocation.calibration, quiet=quiet)
    finish(packed)
    return packed


def round_model(
    reference: ReferenceModel,
    allocation: Allocation,
    rounding: Quantizer,
    calibration: Calibration | None,
    *,
    quiet: bool = False,
) -> Any:
    """A packed model that computes what the finished one does, but that `finish` has not made ready for generating.

    Args:
        reference: the original model; not changed.
        allocation, quiet: see `pack`.
        rounding: the rounding method.
        calibration: windows that matrices are rounded with; without any, each is rounded for itself.

    Raises:
        UsageError, DataError, Overflow: see `pack`.
    """
    if not allocation.tensors:
        raise UsageError("this allocation comes from a synthetic game: there is no model to pack")
    packed = copy.deepcopy(reference.model).eval()
    matrices = _matched(packed, allocation)
    check_weights(packed)
    measured = allocation.provenance.get("model_digest")
    if isinstance(measured, str) and measured != reference.digest:
        raise DataError("the allocation was measured on another model of this shape: its weights are others")
    scope = allocation.provenance.get("scope", "model")
    parameters = count_parameters(packed, list(matrices.values()), scope)
    users = {path: matrix.name for matrix in matrices.values() for path in matrix.users}
    load_for_good(packed, list(dense_tensors(packed, matrices, users)))
    for tensor in dense_tensors(packed, matrices, users).values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(half_dtype(tensor)))
    work = _Work(packed, allocation, rounding)
    with (
        working(len(matrices), label=f"pack {rounding.name}", unit="matrix", quiet=quiet) as work.progress,
        torch.no_grad(),
    ):
        if calibration is None or not rounding.needs_hessian:
            for matrix in matrices.values():
                with resident(packed, matrix.name):
                    work.replace(matrix, None)
                work.put_aside([matrix])
        else:
            check_tokens(calibration.tokens, packed)
            with inference(reference.model):
                _pack_streaming(work, matrices, torch.from_numpy(calibration.tokens.astype(np.int64)))
    packed.nash_swarm_packed = PackedModel(scope, parameters, users, allocation)
    set_activations(packed, ACTIVATIONS[0])
    return packed


def finish(packed: Any) -> PackedConfig:
    """Make a rounded model what a loaded one is, in place; every tensor is hashed for the configuration it returns."""
    from nash_swarm.artifacts.packed_model import describe
    from nash_swarm.integrations.transformers.quantizer import attach

    config = describe(packed)
    attach(packed, config, settled=checkpoint_of(packed) is None)
    return config


def _pack_streaming(work: _Work, matrices: dict[str, Matrix], tokens: torch.Tensor) -> None:
    """Round block after block, each on what the packed ones before it make of the text."""
    stream = stream_of(work.model, tokens)
    placed = Placed.on(stream, matrices.values())
    tables = [matrix for matrix in placed.tables if matrix.kind == "embedding"]
    for matrix in tables:
        with resident(work.model, matrix.name):
            work.replace(matrix, None)
    work.put_aside(tables)
    stream.embed()
    for index, inside in enumerate(placed.inside):
        with stream.resident(index):
            with collecting(work.model, inside) as found:
                stream.forward(index, advance=False)
            for matrix in inside:
                work.replace(matrix, found[matrix.name])
        stream.advance(index)
        work.put_aside(inside)
    # a tied matrix is rounded last, for the hidden states that its packed blocks give it
    with collecting(work.model, placed.outside) as found:
        stream.head()
    for matrix in placed.outside:
        with resident(work.model, matrix.name):
            work.replace(matrix, found[matrix.name])
    work.put_aside(placed.outside)


class _Work:
    """Replaces one matrix's module after the other."""

    progress: Work

    def __init__(self, model: Any, allocation: Allocation, quantizer: Quantizer) -> None:
        self.model, self.allocation, self.quantizer = model, allocation, quantizer
        self.layouts = {layout.name: layout for layout in layouts_of(allocation.tensors)}

    def replace(self, matrix: Matrix, statistics: Statistics | None) -> None:
        layout, strategies = self.layouts[matrix.name], self.allocation.strategies
        order = self.allocation.permutations.get(matrix.name)
        weight = matrix.weight().numpy()
        if statistics is not None:
            check_statistics(matrix.name, statistics)
        hessian = None if statistics is None else statistics.hessian()
        if order is not None:
            weight = weight.take(order, 1)
            hessian = None if hessian is None else reordered(hessian, order)
        weight = np.ascontiguousarray(weight)
        hessian = None if hessian is None else np.ascontiguousarray(hessian)
        widths = self.allocation.widths(layout)
        rounded = self.quantizer.round(weight, widths, layout, hessian)
        agent_widths = np.array(strategies, np.uint8)[self.allocation.choices[layout.span]]
        tensor = layout.format.pack(rounded, agent_widths, layout, order, strategies)
        bias = getattr(matrix.module, "bias", None)
        module = build_module(layout, strategies, len(tensor.buffer), matrix.module)
        module.packed = torch.from_numpy(tensor.buffer)
        if bias is not None:
            module.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.model.set_submodule(matrix.name, module)
        for path in matrix.users:
            self.model.set_submodule(path, build_tied(module, self.model.get_submodule(path)))
        self.progress.update()

    def put_aside(self, matrices: Iterable[Matrix]) -> None:
        """Move what was packed to disk, if the weights came from there."""
        checkpoint = checkpoint_of(self.model)
        if checkpoint is None:
            return
        for matrix in matrices:
            module = self.model.get_submodule(matrix.name)
            module.packed = mapped(module.packed, checkpoint.scratch)


def _matched(model: Any, allocation: Allocation) -> dict[str, Matrix]:
    """The model's matrices by name, in the allocation's order."""
    found = {matrix.name: matrix for matrix in find_matrices(model)}
    for layout in allocation.tensors:
        matrix = found.get(layout.name)
        if matrix is None or matrix.shape != (layout.rows, layout.columns) or matrix.kind != layout.kind:
            raise DataError(
                f"the allocation is for another model: it has a {layout.kind} {layout.name} of "
                f"{layout.rows} x {layout.columns}, this model has not"
            )
    return {layout.name: found[layout.name] for layout in allocation.tensors}
