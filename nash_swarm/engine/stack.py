"""All decoder layers of a model bound to one kernel, as long as nothing in them changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter, contains, is_
from typing import Any

import numpy as np
import torch

from nash_swarm.engine.attention import FusedAttention, interface_is_known
from nash_swarm.engine.family import Family, windows
from nash_swarm.engine.fused import is_plain_inference, is_untouched
from nash_swarm.engine.gated import FusedMlp
from nash_swarm.engine.norm import FusedNorm
from nash_swarm.engine.preallocated import PreallocatedCache
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty
from nash_swarm.quantizers.runtime.cpu.fused.decoder_stack import gather_helpers, kernel, stack_room
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled
from nash_swarm.quantizers.runtime.layer_plan import LayerParts, LayerPlan, plan_layer
from nash_swarm.quantizers.runtime.modules import PackedLinear
from nash_swarm.sharing import cores

_VERSION, _ACTIVATIONS = map(attrgetter, ("_version", "activations"))
Positions = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Cosines and sines of a token's position, for each type of rotary positions that the model has."""


class Stack:
    """What the kernel is called with, and what that was made from.

    Finding out for every token whether all of a layer's parts are what the kernels do would take about as long as their
    products. The verdict is cached here with all that it depends on, and that is compared wholesale.

    Args:
        layers: of one family, all of whose parts are fused.
        plans: theirs, in the same order, of equal shapes.
        seen: how many tokens each layer sees.

    Attributes:
        layers, windows: as given.
        hidden: elements of a token.
        heads: of keys.
        size: elements of a head.
        rotary: elements of a head that have positions.
        group: query heads of each.
    """

    def __init__(self, layers: Sequence[Any], plans: Sequence[LayerPlan], seen: Sequence[int | None]) -> None:
        self.layers, self.windows = tuple(layers), tuple(seen)
        parts = plans[0].parts
        self.size, self.group, self.rotary = parts.size, parts.heads[0] // parts.heads[1], parts.rotary
        self.heads, self.hidden = parts.heads[1], plans[0].hidden
        self._queries, self._keys = (heads * self.size for heads in parts.heads)
        self._plans = tuple(plans)  # their tables must not go away
        self._tables = np.array([plan.table.ctypes.data for plan in plans], np.int64)
        self._room, self._work = (max(getattr(plan, name) for plan in plans) for name in ("room", "work"))
        self._shares = max(1, *(plan.shares for plan in plans))
        self._last_positions = max(plan.parts.positions for plan in plans)
        modules = [module for layer in layers for module in layer.modules()]
        self._modules, self._states = modules, [module.__dict__ for module in modules]
        self._hooks = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
        self._children = [module._modules for module in modules if module._modules]
        self._owners = [module._parameters for module in modules if module._parameters]
        self._attentions = [module for module in modules if isinstance(module, FusedAttention)]
        self._configs = list({id(each.config): each.config for each in self._attentions}.values())
        norms = [module for module in modules if isinstance(module, FusedNorm)]
        self._epsilons = [(norm.__dict__, norm.family.epsilon) for norm in norms]
        self._derived = [norm for norm in norms if norm.family.gain_offset]
        self._linears = [module for module in modules if type(module) is PackedLinear]
        self._dropouts = [module for module in modules if isinstance(module, torch.nn.Dropout)]
        self._objects, self._values = self._parts(), self._facts()

    def __reduce__(self) -> tuple[Any, ...]:
        # addresses are of no use in a copy
        return dict, ()

    @staticmethod
    def of(layers: Sequence[Any], family: Family, config: Any, rotary: int) -> Stack | None:
        """The layers bound to the kernel; `None` if it cannot do what they do.

        Args:
            layers: of the decoder, in order.
            family: what they are declared to be.
            config: of the decoder.
            rotary: elements of a head that have positions.

        Raises:
            DataError: a packed matrix is damaged.
        """
        seen = windows(config, len(layers))
        if not layers or seen is None or not is_untouched(*layers):
            return None
        types = rotary_types(family, config)
        plans: list[LayerPlan] = []
        for place, layer in enumerate(layers):
            if not _is_fused(layer, family) or any(buffer.is_inference() for buffer in layer.buffers()):
                return None
            positions = types.index(config.layer_types[place]) if family.rotary_by_type else 0
            plan = plan_layer(_layer_parts(layer, family, rotary, positions, seen[place] or 0))
            attention = layer._modules[family.attention]
            if plan is None or attention.layer_idx != place:
                return None
            plans.append(plan)
            parts, first = plan.parts, plans[0].parts
            if (parts.heads, parts.size, plan.hidden) != (first.heads, first.size, plans[0].hidden):
                return None
        return Stack(layers, plans, seen)

    def holds(self, layers: Sequence[Any]) -> bool:
        """Whether these are the layers, nothing in them has changed, and they have no hooks."""
        return (
            _same(layers, self.layers)
            and not any(self._hooks)
            and not any(map(contains, self._states, repeat("forward")))
            and _same(self._parts(), self._objects)
            and self._facts() == self._values
            and all(map(interface_is_known, self._configs))
        )

    def positions_fit(self, positions: Positions) -> bool:
        """Whether cosines and sines are those of one token."""
        fit = all(is_plain_inference(part) and part.numel() == self.rotary for pair in positions for part in pair)
        return fit and len(positions) > self._last_positions

    def run(self, x: torch.Tensor, positions: Positions, cache: PreallocatedCache) -> torch.Tensor:
        """What the last layer makes of a token, which is kept in the cache's memory, but not yet counted.

        Args:
            x: float32 (1, 1, hidden), contiguous.
            positions: float32 of `rotary` elements each, contiguous.
            cache: of as many layers.
        """
        out = x.clone()
        tokens = cache.most + 1
        cosines, sines = positions[0] if len(positions) == 1 else map(torch.cat, zip(*positions, strict=True))
        room = aligned_empty(stack_room(self._room, self._queries, self._keys, self.group, tokens))
        # one that waits awake must not keep another one from working
        threads = min(torch.get_num_threads(), cores(), self._shares)
        helpers = None if threads == 1 else gather_helpers(threads, self._work, self.group, tokens)
        call = np.array(
            [
                self._tables.ctypes.data, cache.kept, len(self.layers), out.data_ptr(), cosines.data_ptr(),
                sines.data_ptr(), room.ctypes.data, 0 if helpers is None else helpers.ctypes.data,
            ],
            np.int64,
        )  # fmt: skip
        share_compiled(kernel(), (call.ctypes.data, 0, 0, 0, 0, 0), threads, smallest=1)
        return out

    def _parts(self) -> list[Any]:
        """Objects that must be the same ones."""
        tables = chain(self._children, self._owners)
        packed = [linear._buffers["packed"] for linear in self._linears]
        return [*map(type, self._modules), *chain.from_iterable(table.values() for table in tables), *packed]

    def _facts(self) -> list[Any]:
        """Values that must be equal."""
        packed: list[Any] = [linear._buffers["packed"] for linear in self._linears]
        own = [parameter for owner in self._owners for parameter in owner.values() if parameter is not None]
        facts: list[Any] = [*map(torch.Tensor.data_ptr, packed), *map(_VERSION, packed)]
        facts += map(_ACTIVATIONS, self._linears)
        facts += [(parameter.data_ptr(), parameter.dtype, parameter.shape) for parameter in own]
        facts += [settings[name] for settings, name in self._epsilons]
        facts += [norm.gain().data_ptr() for norm in self._derived]  # another tensor if the weight has changed
        facts += [each.training and each.p for each in self._dropouts]
        facts += [windows(config, len(self.layers)) for config in self._configs]
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


def rotary_types(family: Family, config: Any) -> list[str]:
    """What the rotary module is asked for, each once; one nameless type if it has no types."""
    return sorted(set(config.layer_types)) if family.rotary_by_type else [""]


def _is_fused(layer: Any, family: Family) -> bool:
    """Whether all parts of a layer are fused modules that kernels may stand in for."""
    inner = layer._modules
    attention, mlp, norms = inner[family.attention], inner[family.mlp], [inner[name] for name in family.norms.values()]
    return (
        isinstance(attention, FusedAttention)
        and isinstance(mlp, FusedMlp)
        and all(isinstance(norm, FusedNorm) for norm in (*norms, *attention.norms()))
        and is_untouched(attention, mlp, *norms, *attention.norms())
        and mlp.may()
        and all(type(attention._modules[name]) is PackedLinear for name in (*family.projections, family.output))
        and all(is_untouched(module) for module in attention._modules.values())
        and not (attention.training and attention.attention_dropout)
        and not any(inner[name].training and inner[name].p for name in family.dropouts)
        and interface_is_known(attention.config)
    )


def _layer_parts(layer: Any, family: Family, rotary: int, positions: int, window: int) -> LayerParts:
    inner = layer._modules
    attention, mlp = inner[family.attention], inner[family.mlp]
    norms = {place: inner[name] for place, name in family.norms.items()}
    norms |= dict(zip(("queries", "keys"), attention.norms(), strict=False))
    return LayerParts(
        projections=tuple(attention._modules[name] for name in family.projections),
        output=attention._modules[family.output],
        gates=tuple(mlp._modules[name] for name in family.gates),
        down=mlp._modules[family.down],
        norms={place: (norm.gain(), norm.epsilon()) for place, norm in norms.items()},
        groups=attention.num_key_value_groups,
        size=attention.head_dim,
        scale=attention.scaling,
        rotary=rotary,
        positions=positions,
        window=window,
        activation=mlp.kind(),
    )


def _same(now: Sequence[Any], then: Sequence[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))
