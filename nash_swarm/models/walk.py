"""Which modules of a model hold matrices that play the game, and in which order they are met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.architectures import LEFT_IN_HALF, PLAIN_LINEARS
from nash_swarm.names import SCOPES, Scope
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight matrix of the model.

    Attributes:
        name: path of the module that owns it (of the embedding, if tied).
        kind: see `TensorLayout`.
        module: the module.
        head: path of the output head that is tied to it, if any.
        aliases: paths of other embeddings that look up in it.
    """

    name: str
    kind: Kind
    module: nn.Module
    head: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """Paths of everything else that uses it."""
        return self.aliases if self.head is None else (self.head, *self.aliases)

    @property
    def parameter(self) -> torch.Tensor:
        """The weights as the module holds them."""
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = self.parameter.shape
        return (columns, rows) if self.kind == "conv1d" else (rows, columns)

    def weight(self) -> torch.Tensor:
        """The weights, float32 (outputs, inputs)."""
        weight = self.parameter.detach()
        return (weight.T if self.kind == "conv1d" else weight).float()


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and list of the transformer blocks: the longest ModuleList of modules of one class.

    Raises:
        UsageError: the model has no such list.
    """
    return max(_outermost_lists(model), key=lambda pair: len(pair[1]))


def find_stacks(model: Any) -> list[tuple[str, nn.ModuleList]]:
    """Paths and lists of all transformer blocks: one list, and in an encoder-decoder those of both.

    Raises:
        UsageError: as `find_blocks`.
    """
    return (
        _outermost_lists(model)
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        else [find_blocks(model)]
    )


def _outermost_lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    # a list inside a block (experts, say) is never the list of blocks itself
    lists = [(name, found) for name, found in lists if not any(name.startswith(f"{outer}.") for outer, _ in lists)]
    if not lists:
        raise UsageError(f"{type(model).__name__} has no list of transformer blocks that nash-swarm can walk")
    return lists


def find_matrices(model: Any, scope: Scope = "model") -> list[Matrix]:
    """The matrices in scope, in the order of the model's modules; a tied matrix once.

    `model`: every Linear (see `architectures.PLAIN_LINEARS`), Conv1D and Embedding. `linear`: only those Linear and
    Conv1D inside transformer blocks.

    Raises:
        UsageError: unknown scope, or nothing is in it.
    """
    from transformers import Conv1D

    if scope not in SCOPES:
        raise UsageError(f"unknown scope {scope!r}; choose one of {', '.join(SCOPES)}")

    blocks = tuple(f"{name}." for name, _ in find_stacks(model))
    found: list[Matrix] = []
    owner: dict[int, int] = {}
    for name, module in model.named_modules():
        kind: Kind
        if isinstance(module, nn.Linear) and type(module).__name__ in PLAIN_LINEARS:
            kind = "linear"
        elif isinstance(module, Conv1D):
            kind = "conv1d"
        elif isinstance(module, nn.Embedding):
            kind = "embedding"
        else:
            continue
        if (scope == "linear" and (kind == "embedding" or not name.startswith(blocks))) or _stays(model, name):
            continue
        first = owner.setdefault(id(module.weight), len(found))
        if first == len(found):
            found.append(Matrix(name, kind, module))
            continue
        same = found[first]
        if same.kind == "embedding" and kind == "linear":
            found[first] = replace(same, kind="tied", head=name)
        elif same.kind in ("embedding", "tied") and kind == "embedding":
            found[first] = replace(same, aliases=(*same.aliases, name))
        else:
            raise UsageError(
                f"{name} shares its weight with {same.name}: only embeddings and one output head may share a weight"
            )
    if not found:
        raise UsageError(f"{type(model).__name__} has no weight matrix in scope {scope!r}")
    return found


def _stays(model: nn.Module, name: str) -> bool:
    parent, _, child = name.rpartition(".")
    return child in LEFT_IN_HALF.get(type(model.get_submodule(parent)).__name__, ())


def check_weights(model: nn.Module) -> None:
    """Refuse a model with weights that are no numbers; those that stay on disk are checked whenever they are read.

    Raises:
        DataError: there is one; the message names it.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter).all():
            raise DataError(f"{name.removesuffix('.weight')} holds NaN or infinite weights; the checkpoint is damaged")


def count_parameters(model: nn.Module, matrices: list[Matrix], scope: Scope) -> int:
    """Unique parameters in scope: the denominator of bits per parameter."""
    if scope == "linear":
        return sum(matrix.parameter.numel() for matrix in matrices)
    return sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
