"""The trained copy of a model: latent matrices for packed ones, float32 masters for norms and biases."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from nash_swarm.errors import UsageError
from nash_swarm.models.modes import inference
from nash_swarm.models.tasks import task_of
from nash_swarm.models.walk import Matrix, find_matrices
from nash_swarm.quantizers.runtime.modules import PackedWeight, in_place_of
from nash_swarm.tuning.divergence import Head
from nash_swarm.tuning.latent import Adam, LatentMatrix
from nash_swarm.tuning.latent_modules import LatentEmbedding, LatentLinear


def check_head(model: Any) -> None:
    """Check that a model's logits are exactly the outputs of a linear head, as tuning requires.

    Raises:
        UsageError: it has no linear output head, or changes the head's outputs.
    """
    outputs = model.get_output_embeddings()
    if not isinstance(outputs, nn.Linear):
        raise UsageError(f"{type(model).__name__} has no plain output head, so it cannot be tuned")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = outputs.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    inputs = task_of(model).inputs(torch.zeros(1, 4, dtype=torch.int64))
    name = _path_of(outputs, model)
    with torch.no_grad(), inference(model):
        try:
            logits = model(**inputs).logits
        finally:
            handle.remove()
        model.set_submodule(name, _Identity(outputs))
        try:
            passed = model(**inputs).logits
        except Exception:  # the model computes with its logits, and hidden states do not fit
            passed = None
        finally:
            model.set_submodule(name, outputs)
    plain = len(seen) == 1 and passed is not None
    # equal bits, NaN included; measuring reports NaN in detail
    if not plain or not _same(seen[0][0], passed) or not _same(seen[0][1], logits):
        raise UsageError(f"{type(model).__name__} changes what comes out of its output head, so it cannot be tuned")


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _path_of(wanted: nn.Module, model: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


class _Identity(nn.Module):
    """Replaces the output head and returns its input."""

    def __init__(self, head: nn.Linear, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        # some models read the type of the head's weights (Mamba); it is not used in products
        self.weight = head.weight.detach().to(device="meta", dtype=dtype)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


class Student:
    """A copy of the original that runs without its output head; it is the teacher until `become` is called.

    Args:
        model: the original, float32, prepared by `models.experts.prepare`; not changed.
        dtype: of activations and products. Masters of unpacked parameters are float32.

    Raises:
        UsageError: see `check_head`.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        check_head(model)
        # matrices are replaced and never changed in place, so the copy can share those of the original
        shared = {id(each): nn.Parameter(each.detach(), False) for each in model.parameters() if each.ndim > 1}
        self.model, self._task, self.dtype = copy.deepcopy(model, shared).eval(), task_of(model), dtype
        outputs = self.model.get_output_embeddings()
        self._head_name = _path_of(outputs, self.model)
        bias = None if outputs.bias is None else outputs.bias.detach().clone()
        self.original = Head(outputs.weight.detach(), bias, dtype)
        # the model then returns the head's inputs in the place of logits
        self.model.set_submodule(self._head_name, _Identity(outputs, dtype))
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
            # not `.to`: buffers such as rotary frequencies keep their precision
            parameter.data = parameter.data.to(dtype)
        self.head, self.matrices = self.original, dict[str, LatentMatrix]()
        self.masters: dict[str, torch.Tensor] = {}
        self._latent_head: LatentMatrix | None = None
        self._tied: LatentEmbedding | None = None

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """Inputs of the output head, (sequences, predicted tokens, hidden), for tokens (sequences, length)."""
        return self._task.answer(self.model(**self._task.inputs(tokens)))

    def become(self, packed: Any, originals: Any) -> None:
        """Replace the weights by the packed model's.

        Args:
            packed: a packed model of the original.
            originals: the original model, prepared as this one's was.

        Raises:
            UsageError: the packed model is at `parameter` granularity.
        """
        modules = {name: module for name, module in packed.named_modules() if isinstance(module, PackedWeight)}
        for matrix in find_matrices(originals):
            if matrix.name in modules:
                self._replace(matrix, modules[matrix.name])
        state = packed.state_dict()
        for name, parameter in self.model.named_parameters():
            # norm gains and biases; unpacked tables are large, and few of their rows occur in the text
            if parameter.ndim == 1 and name in state:
                self.masters[name] = state[name].detach().float().clone()
                parameter.requires_grad_()
        self.refresh()

    def round_scales(self, whole: bool) -> None:
        """Choose between rounded and real-valued scale codes, see `LatentMatrix.whole_scales`."""
        for matrix in self.matrices.values():
            matrix.whole_scales = whole
        self.refresh()

    def refresh(self) -> None:
        """Recompute, after a step, everything that depends on the latent matrices and the masters."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(self.masters[name])
        if self._tied is not None:
            self._tied.refresh()
        if self._latent_head is not None:
            self.head = Head(self._latent_head.weight(), self.original.bias, self.dtype)

    @property
    def trains_head(self) -> bool:
        """Whether the output head is latent."""
        return self._latent_head is not None

    def add_head_gradient(self, gradient: torch.Tensor) -> None:
        """Gradient with respect to the output head, (vocabulary, hidden)."""
        assert self._latent_head is not None
        self._latent_head.add_gradient(gradient)

    def step(self, adam: Adam) -> None:
        """One step of all latent matrices."""
        for matrix in self.matrices.values():
            matrix.step(adam)

    def _replace(self, matrix: Matrix, module: PackedWeight) -> None:
        trained = matrix.kind != "embedding"
        latent = LatentMatrix(module.tensor(), trainable=trained)
        if not trained:
            # an embedding alone: too few of its rows occur in the text to train them
            table = self.model.get_submodule(matrix.name)
            table.weight.data = latent.weight().to(self.dtype)
            return
        self.matrices[matrix.name] = latent
        if matrix.name == self._head_name or matrix.head == self._head_name:
            self._latent_head = latent
        if matrix.kind == "tied":
            self._tied = LatentEmbedding(latent, self.dtype)
            self._look_up(matrix.name, self._tied)
            for path in matrix.aliases:
                self._look_up(path, LatentEmbedding(latent, self.dtype, self._tied))
        elif matrix.name != self._head_name:
            bias = getattr(self.model.get_submodule(matrix.name), "bias", None)
            self.model.set_submodule(matrix.name, LatentLinear(latent, self.dtype, bias))

    def _look_up(self, path: str, embedding: LatentEmbedding) -> None:
        self.model.set_submodule(path, in_place_of(self.model.get_submodule(path), embedding))
