"""All decoder layers of a model bound to one kernel, as long as nothing in them changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter, contains, is_
from typing import Any

import numpy as np
import torch

from nash_swarm.engine.attention import interface_is_known
from nash_swarm.engine.growing import GrowingCache
from nash_swarm.engine.norm import QuickNorm
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty
from nash_swarm.quantizers.runtime.cpu.fused.decoder_stack import gather_helpers, kernel, stack_room
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled
from nash_swarm.quantizers.runtime.layer_plan import LayerPlan
from nash_swarm.quantizers.runtime.modules import PackedLinear
from nash_swarm.sharing import cores

_VERSION, _ACTIVATIONS, _EPSILON = map(attrgetter, ("_version", "activations", "variance_epsilon"))


class Stack:
    """What the kernel is called with, and what that was made from.

    For every token a layer asks its parts whether it may be quick, which takes about as long as their products. What
    they have said is remembered here with all that it depends on, and that is compared wholesale.

    Args:
        layers: `QuickDecoderLayer`, each of which would go its quick way.
        plans: theirs, in the same order, of equal shapes.

    Attributes:
        layers: as given.
        hidden: elements of a token.
        heads: of keys.
        size: elements of a head.
        group: query heads of each.
    """

    def __init__(self, layers: Sequence[Any], plans: Sequence[LayerPlan]) -> None:
        self.layers = tuple(layers)
        self._attentions = [layer.self_attn for layer in layers]
        self.size, self.group = self._attentions[0].head_dim, self._attentions[0].num_key_value_groups
        self._queries, self._keys, _ = plans[0].rows
        self.heads = self._keys // self.size
        self.hidden = layers[0].input_layernorm.weight.numel()
        self._plans = tuple(plans)  # their tables must not go away
        self._tables = np.array([plan.address for plan in plans], np.int64)
        self._room, self._work = (max(getattr(plan, name) for plan in plans) for name in ("room", "work"))
        self._shares = max(1, *(plan.shares for plan in plans))
        modules = [module for layer in layers for module in layer.modules()]
        self._modules, self._states = modules, [module.__dict__ for module in modules]
        self._hooks = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
        self._families = [module._modules for module in modules if module._modules]
        self._owners = [module._parameters for module in modules if module._parameters]
        self._configs = list({id(each.config): each.config for each in self._attentions}.values())
        self._norms = [module for module in modules if isinstance(module, QuickNorm)]
        self._linears = [module for module in modules if type(module) is PackedLinear]
        self._objects, self._values = self._parts(), self._facts()

    def __reduce__(self) -> tuple[Any, ...]:
        # addresses are of no use in a copy
        return dict, ()

    @staticmethod
    def fits(layers: Sequence[Any], plans: Sequence[LayerPlan]) -> bool:
        """Whether layers stand in the order of the cache and have one shape, in memory that counts its changes."""
        first = layers[0].self_attn
        for place, (layer, plan) in enumerate(zip(layers, plans, strict=True)):
            attention = layer.self_attn
            shape = (attention.head_dim, attention.num_key_value_groups)
            if attention.layer_idx != place or shape != (first.head_dim, first.num_key_value_groups):
                return False
            if plan.rows != plans[0].rows or any(buffer.is_inference() for buffer in layer.buffers()):
                return False
        return plans[0].rows[0] == plans[0].rows[1] * first.num_key_value_groups

    def holds(self, layers: Sequence[Any]) -> bool:
        """Whether these are the layers, nothing in them has changed, and nobody has hooked into them."""
        return (
            _same(layers, self.layers)
            and not any(self._hooks)
            and not any(map(contains, self._states, repeat("forward")))
            and _same(self._parts(), self._objects)
            and self._facts() == self._values
            and all(map(interface_is_known, self._configs))
        )

    def run(self, x: torch.Tensor, positions: Sequence[torch.Tensor], cache: GrowingCache) -> torch.Tensor:
        """What the last layer makes of a token, which is kept in the cache's memory, but not yet counted.

        Args:
            x: float32 (1, 1, hidden), contiguous.
            positions: cosines and sines of its position, float32 of `size` elements, contiguous.
            cache: of as many layers.
        """
        out = x.clone()
        tokens = cache.tokens + 1
        room = aligned_empty(stack_room(self._room, self._queries, self._keys, self.group, tokens))
        # one that waits awake must not keep another one from working
        threads = min(torch.get_num_threads(), cores(), self._shares)
        helpers = None if threads == 1 else gather_helpers(threads, self._work, self.group, tokens)
        call = np.array(
            [
                self._tables.ctypes.data, cache.kept, len(self.layers), out.data_ptr(), positions[0].data_ptr(),
                positions[1].data_ptr(), cache.tokens, room.ctypes.data, 0 if helpers is None else helpers.ctypes.data,
            ],
            np.int64,
        )  # fmt: skip
        share_compiled(kernel(), (call.ctypes.data, 0, 0, 0, 0, 0), threads, smallest=1)
        return out

    def _parts(self) -> list[Any]:
        """Objects that must be the same ones."""
        tables = chain(self._families, self._owners)
        packed = [linear._buffers["packed"] for linear in self._linears]
        return [*map(type, self._modules), *chain.from_iterable(table.values() for table in tables), *packed]

    def _facts(self) -> list[Any]:
        """Values that must be equal."""
        packed: list[Any] = [linear._buffers["packed"] for linear in self._linears]
        own = [parameter for owner in self._owners for parameter in owner.values() if parameter is not None]
        facts: list[Any] = [*map(torch.Tensor.data_ptr, packed), *map(_VERSION, packed)]
        facts += map(_ACTIVATIONS, self._linears)
        facts += [(parameter.data_ptr(), parameter.dtype, parameter.shape) for parameter in own]
        facts += map(_EPSILON, self._norms)
        facts += [
            (
                a.scaling,
                a.head_dim,
                a.num_key_value_groups,
                a.layer_idx,
                id(a.config),
                a.training and a.attention_dropout,
            )
            for a in self._attentions
        ]
        return facts


def _same(now: Sequence[Any], then: Sequence[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))
