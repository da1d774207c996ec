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
from nash_swarm.artifacts.facts import PackedFacts
from nash_swarm.calibration.collect import collecting, comparing
from nash_swarm.calibration.passes import Placed, stream_of
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.calibration.streaming import BlockStream, check_tokens
from nash_swarm.damage.overflow import check_statistics
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.allocation import Allocation
from nash_swarm.models.architectures import prepare
from nash_swarm.models.experts import has_experts
from nash_swarm.models.identity import weights_digest
from nash_swarm.models.modes import inference
from nash_swarm.models.offload import checkpoint_of, load_for_good, mapped, resident
from nash_swarm.models.walk import Matrix, check_weights, count_parameters, find_matrices
from nash_swarm.names import DEFAULT_QUANTIZER
from nash_swarm.progress import Work, working
from nash_swarm.quantizers.formats.base import Layout, layouts_of
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.rounding.hessian import corrected_weight, reordered
from nash_swarm.quantizers.runtime.modules import (
    PackedEmbedding,
    PackedLinear,
    PackedWeight,
    TiedHead,
    TiedLookup,
    in_place_of,
)

_DRIFT_DAMPING = 0.01
"""Of the Hessian in the correction of drift, relative to the mean of its diagonal; as in error-compensated rounding."""


def pack(
    model: Any,
    allocation: Allocation,
    *,
    quantizer: str | Quantizer = DEFAULT_QUANTIZER,
    propagation: float = 0.0,
    quiet: bool = False,
) -> Any:
    """Round and pack every matrix of the allocation; everything else is rounded to 16 bits.

    Matrices are rounded block by block on the activations of the already packed blocks before them, so that each makes
    up for what went wrong earlier (Frantar et al. 2023, section 4).

    Args:
        model: the original model in float32; not changed.
        allocation: from `solve`, on a game measured on this model.
        quantizer: name or instance of a rounding method.
        propagation: from 0 to 1, how far each matrix is moved, before it is rounded, to undo what the rounding of
            those before it has done to its inputs (`hessian.corrected_weight`); takes a pass of the original model.
        quiet: no progress bar.

    Raises:
        UsageError: unknown quantizer, a propagation outside [0, 1] or that the architecture does not allow, or an
            allocation of a synthetic game.
        DataError: the allocation belongs to another model, or the weights are not finite.
        Overflow: the inputs of a matrix are too large for their squares to be finite.
    """
    from nash_swarm.artifacts.packed_model import describe
    from nash_swarm.integrations.transformers.quantizer import attach

    arguments.original(model)
    arguments.instance("the allocation", allocation, Allocation, "from solve or load_allocation")
    arguments.number("propagation", propagation)
    rounding: Quantizer = registry.resolve("quantizers", quantizer, "round")
    if not allocation.tensors:
        raise UsageError("this allocation comes from a synthetic game: there is no model to pack")
    if not 0 <= propagation <= 1:
        raise UsageError(f"the propagation of errors must be between 0 and 1, not {propagation}")
    model = prepare(model)
    packed = copy.deepcopy(model).eval()
    matrices = _matched(packed, allocation)
    check_weights(packed)
    measured = allocation.provenance.get("model_digest")
    if isinstance(measured, str) and measured != weights_digest(model):
        raise DataError("the allocation was measured on another model of this shape: its weights are others")
    parameters = count_parameters(packed, list(matrices.values()), allocation.provenance.get("scope", "model"))
    users = {path: matrix.name for matrix in matrices.values() for path in matrix.users}
    load_for_good(packed, list(dense_tensors(packed, matrices, users)))
    for tensor in dense_tensors(packed, matrices, users).values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(half_dtype(tensor)))
    work = _Work(packed, allocation, rounding, propagation)
    calibration = allocation.calibration
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
            tokens = torch.from_numpy(calibration.tokens.astype(np.int64))
            with inference(model):
                _pack_streaming(work, matrices, tokens, model if propagation else None)
    scope = allocation.provenance.get("scope", "model")
    packed.nash_swarm_facts = PackedFacts(scope, parameters, users)
    packed.nash_swarm_allocation = allocation
    attach(packed, describe(packed), settled=checkpoint_of(packed) is None)
    return packed


def _pack_streaming(work: _Work, matrices: dict[str, Matrix], tokens: torch.Tensor, model: Any) -> None:
    """Round block after block; with the original model, on how far the inputs have drifted from that one's."""
    stream = stream_of(work.model, tokens)
    original: BlockStream | None = None
    if model is not None:
        if not isinstance(stream, BlockStream):
            raise UsageError(f"{type(model).__name__} does not come apart into blocks, so errors cannot be propagated")
        if has_experts(model):
            raise UsageError("errors cannot be propagated to experts: rounded, the model sends them other tokens")
        original = BlockStream(model, tokens)
    placed = Placed.on(stream, matrices.values())
    tables = [matrix for matrix in placed.tables if matrix.kind == "embedding"]
    for matrix in tables:
        with resident(work.model, matrix.name):
            work.replace(matrix, None)
    work.put_aside(tables)
    stream.embed()
    originals = {}
    if original is not None:
        original.embed()
        originals = {matrix.name: matrix for matrix in find_matrices(original.model)}
    for index, inside in enumerate(placed.inside):
        with stream.resident(index):
            if original is None or not isinstance(stream, BlockStream):
                with collecting(work.model, inside) as found:
                    stream.forward(index, advance=False)
            else:
                with (
                    original.resident(index),
                    comparing([originals[matrix.name] for matrix in inside], inside, work.model) as found,
                ):
                    for number in range(len(stream.batches)):
                        original.forward_batch(index, number)
                        stream.forward_batch(index, number, advance=False)
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

    def __init__(self, model: Any, allocation: Allocation, quantizer: Quantizer, propagation: float) -> None:
        self.model, self.allocation, self.quantizer, self.propagation = model, allocation, quantizer, propagation
        self.layouts = {layout.name: layout for layout in layouts_of(allocation.tensors)}

    def replace(self, matrix: Matrix, statistics: Statistics | None) -> None:
        layout, strategies = self.layouts[matrix.name], self.allocation.strategies
        order = self.allocation.permutations.get(matrix.name)
        weight = matrix.weight().numpy()
        if statistics is not None:
            check_statistics(matrix.name, statistics)
        hessian = None if statistics is None else statistics.hessian()
        drift = None if statistics is None else statistics.mean_drift()
        if hessian is not None and drift is not None:
            weight = corrected_weight(weight, hessian, drift, _DRIFT_DAMPING, self.propagation)
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


def build_module(
    layout: Layout, strategies: tuple[int, ...], size: int, original: nn.Module, *, bias: bool | None = None
) -> PackedWeight:
    """The empty packed module for a layout.

    Args:
        layout, strategies, size: see `PackedWeight`.
        original: the module it replaces.
        bias: whether there is one; as in `original` by default.
    """
    if layout.kind in ("embedding", "tied"):
        return in_place_of(original, PackedEmbedding(layout, strategies, size))
    return PackedLinear(layout, strategies, size, _has_bias(original) if bias is None else bias)


def build_tied(embedding: nn.Module, original: nn.Module) -> nn.Module:
    """What takes the place of a module that shares the weight of a packed embedding."""
    assert isinstance(embedding, PackedEmbedding)
    if isinstance(original, nn.Embedding):
        return in_place_of(original, TiedLookup(embedding))
    head = TiedHead(embedding, bias=_has_bias(original))
    if head.bias is not None:
        head.bias = original.bias  # type: ignore[assignment]
    return head


def _has_bias(module: nn.Module) -> bool:
    return getattr(module, "bias", None) is not None


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
