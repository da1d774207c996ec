"""Attention with rotary positions: a sequence of a batch, padded or not, comes to the bits that it comes to alone."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch

from nash_swarm.engine.draw import Draw, Pairs
from nash_swarm.engine.family import Family
from nash_swarm.engine.fused import Fused, arguments_of, is_packed, strange
from nash_swarm.engine.norm import FusedNorm
from nash_swarm.engine.padding import read_padding
from nash_swarm.engine.probe import FAR
from nash_swarm.engine.rows import attend_apart, attend_one, one_token_each, rotated
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES
from nash_swarm.quantizers.runtime.ops import nobody_watches

_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position"})
"""Keyword arguments that do not change the answer; of places of tokens a trial makes sure."""


class FusedAttention(Fused):
    """An attention over any cache of transformers' that keeps float32: one token, or a batch with a mask.

    With torch's attention they differ in the mask alone. A mask that is no padding is left to torch.
    """

    config: Any
    head_dim: int
    num_key_value_groups: int
    scaling: float
    attention_dropout: float
    layer_idx: int

    @classmethod
    def mismatch(cls, module: Any, family: Family) -> str | None:
        """See `Fused.mismatch`."""
        if (reason := strange(module, family.attention_parts)) is not None:
            return reason
        for setting in family.unset:
            if (value := getattr(module.config, setting, None)) is not None and value is not False:
                return f"it is configured with {setting}"
        size, groups = getattr(module, "head_dim", None), getattr(module, "num_key_value_groups", None)
        if not isinstance(size, int) or not isinstance(groups, int) or size <= 0 or size % (2 * LANES):
            return f"its heads of {size} elements are no multiple of {2 * LANES}"
        inner = module._modules
        if not is_packed(inner[family.output], *(inner[name] for name in family.projections)):
            return "its matrices are not packed, packed weight by weight, or hooked"
        norms = [inner[name] for name in family.head_norms]
        if not all(isinstance(norm, FusedNorm) and norm.weight.shape == (size,) for norm in norms):
            return "the norms of its queries and keys are no root-mean-square norms of a head"
        rows = [inner[name].out_features for name in family.projections]
        heads, rest = divmod(sum(rows), size * (groups + 2))
        whole = [size * heads * groups, size * heads, size * heads]
        if rest or rows != (whole if len(rows) == 3 else [sum(whole)]) or inner[family.output].in_features != whole[0]:
            return "its queries, keys and values are no whole heads"
        return None

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the module's own."""
        past = past_key_values if cache is None else cache
        if self._may(hidden_states, position_embeddings, attention_mask, kwargs):
            return self._run(hidden_states, position_embeddings, attention_mask, past, kwargs), None
        return self._own(hidden_states, position_embeddings, attention_mask, past, kwargs)

    def trial(self, draw: Draw) -> Pairs:
        """See `Fused.trial`: single tokens; then of two sequences, one of which is padded, three tokens and one."""
        from transformers.cache_utils import DynamicCache

        fused, own = DynamicCache(), DynamicCache()
        for scale in (1.0, 1.0, 8.0, 1.0):
            x, positions = scale * draw.normal(1, 1, self._inputs()), draw.positions(self._rotary())
            expected = self._own(x, positions, None, own, self._far(1, 1))[0]
            yield self._run(x, positions, None, fused, {}), expected
        for name in ("keys", "values"):
            yield getattr(fused.layers[self.layer_idx], name), getattr(own.layers[self.layer_idx], name)
        if not interface_is_known(self.config):
            return
        fused, own = DynamicCache(), DynamicCache()
        seen = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
        seen[1, :, :, 0] = False
        for mask in (seen[:, :, :3, :3], seen[:, :, 3:]):
            tokens = mask.shape[2]
            x = draw.normal(2, tokens, self._inputs())
            drawn = [draw.positions(self._rotary()) for _ in range(2 * tokens)]
            cosines, sines = (torch.cat(each).view(2, tokens, -1) for each in zip(*drawn, strict=True))
            expected = self._own(x, (cosines, sines), mask, own, self._far(2, tokens))[0]
            found = self._run(x, (cosines, sines), mask, fused, {})
            first = 1 if tokens > 1 else 0
            yield found[0], expected[0]
            yield found[1, first:], expected[1, first:]

    def norms(self) -> list[Any]:
        """Of the heads of queries and keys, if there are any."""
        return [self._modules[name] for name in self.family.head_norms]

    def window(self) -> int | None:
        """How many tokens are seen at most."""
        window: int | None = getattr(self, "sliding_window", getattr(self.config, "sliding_window", None))
        return window

    def _rotary(self) -> int:
        """Elements of a head that have positions."""
        parameters = getattr(self.config, "rope_parameters", None) or {}
        share = parameters.get("partial_rotary_factor") or getattr(self.config, "partial_rotary_factor", None) or 1.0
        return int(self.head_dim * share)

    def _far(self, *shape: int) -> dict[str, Any]:
        """Places far behind in a text, for a forward that has its own use for them."""
        asked = "position_ids" in arguments_of(type(self).__bases__[1].forward)  # type: ignore[attr-defined]
        return {"position_ids": torch.full(shape, FAR)} if asked else {}

    def _inputs(self) -> int:
        queries: Any = self._modules[self.family.projections[0]]
        return int(queries.in_features)

    def _own(self, x: torch.Tensor, positions: Any, mask: Any, past: Any, kwargs: dict[str, Any]) -> Any:
        own = super().forward
        named = {self.cache_argument: past}
        return own(x, position_embeddings=positions, attention_mask=mask, **named, **kwargs)

    def _may(self, x: torch.Tensor, positions: Any, mask: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this is one token, or a batch that is padded."""
        return (
            not torch.compiler.is_compiling()
            and nobody_watches(x, x)
            and x.ndim == 3
            and (mask is not None or x.shape[1] == 1)
            and positions is not None
            and all(part.ndim == 3 and part.shape[-1] <= self.head_dim for part in positions)
            and not (self.training and self.attention_dropout)
            and kwargs.keys() <= _HARMLESS
            and interface_is_known(self.config)
        )

    def _run(self, x: torch.Tensor, positions: Any, mask: Any, past: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        inner, size, groups = self._modules, self.head_dim, self.num_key_value_groups
        states = [inner[name](x) for name in self.family.projections]  # type: ignore[misc]
        if len(states) == 1:
            heads = states[0].shape[-1] // (groups + 2)
            states = list(states[0].split((groups * heads, heads, heads), -1))
        states = [each.reshape(*x.shape[:-1], -1, size) for each in states]
        for k, norm in enumerate(self.norms()):
            states[k] = norm(states[k])
        queries, keys, values = (each.transpose(1, 2) for each in states)
        queries, keys = (rotated(each, *positions) for each in (queries, keys))
        if past is not None:
            keys, values = past.update(keys, values, self.layer_idx)
        attend = partial(_interface(self.config), self, dropout=0.0, scaling=self.scaling, **kwargs)
        # kernels read keys by address: a mask of another size is left to torch, which refuses it
        fits = mask is not None and mask.shape[0] in (1, len(x)) and mask.shape[-2:] == (x.shape[1], keys.shape[2])
        padding = read_padding(mask, len(x), self.window()) if fits else None
        if padding is not None:
            out = attend_apart(attend, queries, keys, values, mask, padding, self.scaling)
        elif mask is None and one_token_each(queries, keys, values):
            out = attend_one(queries, keys, values, ((0, keys.shape[2]),) * len(x), self.scaling)
        else:
            out = attend(queries, keys, values, mask)[0]
        mixed: torch.Tensor = inner[self.family.output](out.reshape(*x.shape[:-1], -1).contiguous())  # type: ignore[misc]
        return mixed


@cache
def _transformers() -> tuple[Any, Any]:
    """Its table of attention functions, and the one in it that this stands in for."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS, sdpa_attention_forward


def interface_is_known(config: Any) -> bool:
    """Whether a model's attention is the one that this stands in for."""
    return _interface(config) is _transformers()[1]


def _interface(config: Any) -> Any:
    return _transformers()[0].get_interface(config._attn_implementation, None)
