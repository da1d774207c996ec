"""Mixtures of experts whose weights are fused into 3-D tensors, opened into one linear layer per expert and projection.

transformers keeps the experts of a layer in parameters of shape (experts, out, in). An opened model computes the same
and shares their memory, but every slice is the weight of an `nn.Linear` that can be watched, cut into agents and packed
like any other.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from nash_swarm.compat.classes import combined
from nash_swarm.compat.hf import follows_experts_protocol, gated, mark_initialized
from nash_swarm.compat.torch_names import blank_tables, tables
from nash_swarm.errors import UsageError
from nash_swarm.models.architectures import settle_weights
from nash_swarm.models.offload import require_in_memory

_PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")


def prepare(model: Any) -> Any:
    """The model as the stages of the pipeline want it: weights settled, experts opened; itself where nothing is to do.

    Raises:
        UsageError: see `opened`.
    """
    settle_weights(model)
    return opened(model)


def opened(model: Any) -> Any:
    """The model with its experts opened: itself if it has none, else a copy that shares all weights.

    Raises:
        UsageError: its experts follow no convention that is known here, or are on disk.
    """
    if not any(_is_fused(module) for module in model.modules()):
        return model
    require_in_memory(model, "experts that are fused in one tensor")
    return _open(_structure_of(model))


def open_experts(model: Any) -> None:
    """Open a model's experts in place.

    Raises:
        UsageError: as `opened`.
    """
    _open(model)


def _open(model: Any) -> Any:
    for name, module in list(model.named_modules()):
        if _is_fused(module):
            model.set_submodule(name, _split(module, name))
    return model


def _structure_of(model: nn.Module) -> nn.Module:
    """A copy of all modules that shares their parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _is_fused(module: nn.Module) -> bool:
    return any(parameter is not None and parameter.ndim == 3 for parameter in tables(module)[0].values()) and (
        type(module).__name__.endswith("Experts") or follows_experts_protocol(module)
    )


def _split(experts: Any, name: str) -> nn.Module:
    theirs: Any = type(experts)
    if not follows_experts_protocol(experts) or getattr(experts, "has_post_expert_norm", False):
        raise UsageError(f"{name}: nash-swarm cannot cut the fused experts of a {theirs.__name__}")
    split: Any = theirs.__new__(theirs)
    vars(split).update(vars(experts))
    blank_tables(split)
    split.__class__ = combined(_Opened, theirs, _facts)
    mark_initialized(split)  # or its numbers are random, by names that are gone
    parameters, children = tables(experts)[0], tables(split)[2]
    for projection in _PROJECTIONS:
        weights = parameters.get(projection)
        if weights is None:
            continue
        biases = parameters.get(f"{projection}_bias")
        children[projection] = nn.ModuleList(
            _linear(weight.T if experts.is_transposed else weight, None if biases is None else biases[place])
            for place, weight in enumerate(weights.detach())
        )
    opened_experts: nn.Module = split
    return opened_experts


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


class _Opened:
    """Experts as linear layers: `gate_up_proj` (or `up_proj`) and `down_proj` are lists with one for each."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Weighted sum of what the chosen experts make of each token.

        Args:
            args, kwargs: hidden states (tokens, hidden), experts chosen (tokens, choices) and their weights, in this
                order, under whatever names the architecture has for them.
        """
        hidden, chosen, shares = (*args, *kwargs.values())
        experts: Any = self
        first = experts.gate_up_proj if experts.has_gate else experts.up_proj
        out = torch.zeros_like(hidden)
        # in their order, so that sums come out as those of the fused experts do
        for expert in torch.unique(chosen).tolist():
            if not 0 <= expert < len(first):
                continue
            tokens, choice = torch.where(chosen == expert)
            inner = first[expert](hidden[tokens])
            inner = gated(experts, inner) if experts.has_gate else experts.act_fn(inner)
            made = experts.down_proj[expert](inner) * shares[tokens, choice, None]
            out.index_add_(0, tokens, made.to(out.dtype))
        return out


def _facts(_: Any, theirs: Any) -> tuple[str, dict[str, Any]]:
    return f"Opened{theirs.__name__}", {}
