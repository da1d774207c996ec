"""Attention with rotary positions: what stands between the four products, for one token of one sequence."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch

from nash_swarm.engine.norm import QuickNorm
from nash_swarm.engine.padding import read_padding
from nash_swarm.engine.quick import Quick, bare, unseen, untouched
from nash_swarm.engine.recognise import Pattern, arguments_of
from nash_swarm.engine.rows import attend_apart, attend_one, one_token_each, rotated
from nash_swarm.engine.trial import FAR, Draw, Pairs
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, attention_room, kernels
from nash_swarm.quantizers.runtime.layer_plan import is_vector
from nash_swarm.quantizers.runtime.ops import nobody_watches
from nash_swarm.quantizers.runtime.products import one_token

_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position"})
"""Keyword arguments that do not change the answer; of places of tokens a trial makes sure."""
_ALONE = 1 << 20
"""Products of queries with keys from which torch's own attention, with several threads, is worth more."""


class QuickAttention(Quick):
    """`LlamaAttention` and its likes over any cache of transformers' that keeps float32.

    With torch's attention they differ in the mask alone. A mask that is no padding is left to torch.
    """

    pattern = Pattern(
        parts=frozenset({"q_proj", "k_proj", "v_proj", "o_proj"}),
        may=frozenset({"q_norm", "k_norm"}),
        settings=frozenset(
            {
                "head_dim", "num_key_value_groups", "scaling", "attention_dropout", "is_causal", "sliding_window",
                "num_heads", "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rope_theta",
            }
        ),
        arguments=frozenset({"hidden_states", "position_embeddings", "attention_mask", "cache"}),
        harmless=_HARMLESS,
    )  # fmt: skip

    config: Any
    head_dim: int
    num_key_value_groups: int
    scaling: float
    attention_dropout: float
    layer_idx: int

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """See `Quick.mismatch`."""
        if (reason := cls.pattern.mismatch(module)) is not None:
            return reason
        if getattr(module.config, "clip_qkv", None) is not None:
            return "it clips queries, keys and values"
        size, groups = getattr(module, "head_dim", None), getattr(module, "num_key_value_groups", None)
        if not isinstance(size, int) or not isinstance(groups, int) or size <= 0 or size % (2 * LANES):
            return f"its heads of {size} elements are no multiple of {2 * LANES}"
        if not bare(module.q_proj, module.k_proj, module.v_proj, module.o_proj):
            return "its matrices are not packed, packed weight by weight, or hooked"
        norms = _head_norms(module)
        if len(norms) == 1 or not all(isinstance(norm, QuickNorm) and norm.weight.shape == (size,) for norm in norms):
            return "the norms of its queries and keys are no root-mean-square norms of a head"
        rows = (module.q_proj.out_features, module.k_proj.out_features, module.v_proj.out_features)
        heads = rows[1] // size
        if rows != (size * heads * groups, size * heads, size * heads) or module.o_proj.in_features != rows[0]:
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
        if torch.compiler.is_compiling() or not self.may(hidden_states, position_embeddings, attention_mask, kwargs):
            if self._may_apart(hidden_states, position_embeddings, attention_mask, kwargs):
                return self._apart(hidden_states, position_embeddings, attention_mask, past, kwargs), None
            return self._own(hidden_states, position_embeddings, attention_mask, past, kwargs)
        return self._run(hidden_states, position_embeddings, past, kwargs), None

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        from transformers.cache_utils import DynamicCache

        quick, own = DynamicCache(), DynamicCache()
        for scale in (1.0, 1.0, 8.0, 1.0):
            x = scale * draw.normal(1, 1, self._inputs())
            positions = draw.positions(self.head_dim)
            expected = self._own(x, positions, None, own, self._far(1, 1))[0]
            yield self._run(x, positions, quick, {}), expected
        for name in ("keys", "values"):
            yield getattr(quick.layers[self.layer_idx], name), getattr(own.layers[self.layer_idx], name)
        if interface_is_known(self.config):
            yield from self._trial_of_batches(draw)

    def _trial_of_batches(self, draw: Draw) -> Pairs:
        """Three tokens and then one of two sequences, the second of which begins with padding."""
        from transformers.cache_utils import DynamicCache

        quick, own = DynamicCache(), DynamicCache()
        seen = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
        seen[1, :, :, 0] = False
        for mask in (seen[:, :, :3, :3], seen[:, :, 3:]):
            tokens = mask.shape[2]
            x = draw.normal(2, tokens, self._inputs())
            drawn = [draw.positions(self.head_dim) for _ in range(2 * tokens)]
            cosines, sines = (torch.cat(each).view(2, tokens, -1) for each in zip(*drawn, strict=True))
            expected = self._own(x, (cosines, sines), mask, own, self._far(2, tokens))[0]
            found = self._apart(x, (cosines, sines), mask, quick, {})
            first = 1 if tokens > 1 else 0
            yield found[0], expected[0]
            yield found[1, first:], expected[1, first:]

    def _far(self, *shape: int) -> dict[str, Any]:
        """Places far behind in a text, for a forward that has its own use for them."""
        asked = "position_ids" in arguments_of(type(self).__bases__[1].forward)  # type: ignore[attr-defined]
        return {"position_ids": torch.full(shape, FAR)} if asked else {}

    def _inputs(self) -> int:
        queries: Any = self._modules["q_proj"]
        return int(queries.in_features)

    def _own(self, x: torch.Tensor, positions: Any, mask: Any, past: Any, kwargs: dict[str, Any]) -> Any:
        own = super().forward
        named = {self.cache_argument: past}
        return own(x, position_embeddings=positions, attention_mask=mask, **named, **kwargs)

    def _run(self, hidden_states: torch.Tensor, positions: Any, past: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        inner, size = self._modules, self.head_dim
        queries, keys, values = one_token(hidden_states, inner["q_proj"], inner["k_proj"], inner["v_proj"])
        heads, group = keys.numel() // size, self.num_key_value_groups
        for norm, states in zip(self.norms(), (queries, keys), strict=False):
            gain, place = norm.weight.data_ptr(), states.data_ptr()
            kernels().norm(place, gain, place, states.numel() // size, size, norm.variance_epsilon)
        cosines, sines = positions[0].data_ptr(), positions[1].data_ptr()
        kernels().rotate(queries.data_ptr(), cosines, sines, heads * group, size)
        kernels().rotate(keys.data_ptr(), cosines, sines, heads, size)
        out = self.mix(queries, keys, values, past, kwargs)
        return one_token(out, inner["o_proj"])[0].view(1, 1, -1)

    def norms(self) -> list[Any]:
        """Of the heads of queries and keys, if there are any."""
        return _head_norms(self)

    def mix(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, past_key_values: Any, kwargs: Any
    ) -> torch.Tensor:
        """Keep a token's keys and values, and attend to all that are kept.

        Args:
            queries: float32 (heads * head_dim,), rotated.
            keys, values: float32 (key heads * head_dim,); the keys rotated.
            past_key_values: the cache, or `None`.
            kwargs: what transformers' own attention is given besides.

        Returns:
            float32 (heads * head_dim,).
        """
        heads, size = keys.numel() // self.head_dim, self.head_dim
        keys, values = keys.view(1, heads, 1, size), values.view(1, heads, 1, size)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        out = self._attend(queries, keys, values, heads)
        if out is None:
            queries = queries.view(1, heads * self.num_key_value_groups, 1, size)
            attend = _interface(self.config)
            out = attend(self, queries, keys, values, None, dropout=0.0, scaling=self.scaling, **kwargs)[0]
            out = out.reshape(-1).contiguous()
        return out

    def may(self, x: torch.Tensor, positions: Any, mask: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the kernels do all that is asked of the module with these arguments of its `forward`."""
        inner = self._modules
        if (
            mask is not None
            or not unseen(x)
            or x.ndim != 3
            or x.numel() != x.shape[-1]
            or not bare(inner["q_proj"], inner["k_proj"], inner["v_proj"], inner["o_proj"])
            or (self.training and self.attention_dropout)
            or not kwargs.keys() <= _HARMLESS
            or not interface_is_known(self.config)
            or not all(_normed(norm, self.head_dim) for norm in self.norms())
        ):
            return False
        return positions_fit(positions, self.head_dim)

    def _may_apart(self, x: torch.Tensor, positions: Any, mask: Any, kwargs: dict[str, Any]) -> bool:
        """Whether a batch, padded or of one token each, is computed sequence by sequence."""
        return (
            not torch.compiler.is_compiling()
            and nobody_watches(x, x)
            and x.ndim == 3
            and (mask is not None or x.shape[1] == 1)
            and positions is not None
            and all(part.ndim == 3 and part.shape[-1] == self.head_dim for part in positions)
            and not (self.training and self.attention_dropout)
            and kwargs.keys() <= _HARMLESS
            and interface_is_known(self.config)
        )

    def _apart(self, x: torch.Tensor, positions: Any, mask: Any, past: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        shape = (*x.shape[:-1], -1, self.head_dim)
        states = [self._modules[name](x).view(shape) for name in ("q_proj", "k_proj", "v_proj")]  # type: ignore[misc]
        for k, norm in enumerate(self.norms()):
            states[k] = norm(states[k])
        queries, keys, values = (each.transpose(1, 2) for each in states)
        queries, keys = (rotated(each, *positions) for each in (queries, keys))
        if past is not None:
            keys, values = past.update(keys, values, self.layer_idx)
        attend = partial(_interface(self.config), self, dropout=0.0, scaling=self.scaling, **kwargs)
        padding = None if mask is None else read_padding(mask, len(x))
        if padding is not None:
            out = attend_apart(attend, queries, keys, values, mask, padding, self.scaling)
        elif mask is None and one_token_each(queries, keys, values):
            out = attend_one(queries, keys, values, ((0, keys.shape[2]),) * len(x), self.scaling)
        else:
            out = attend(queries, keys, values, mask)[0]
        mixed: torch.Tensor = self._modules["o_proj"](out.reshape(*x.shape[:-1], -1).contiguous())  # type: ignore[misc]
        return mixed

    def _attend(self, queries: torch.Tensor, keys: Any, values: Any, heads: int) -> torch.Tensor | None:
        """(heads * group * size,), `None` where this is not for the kernel."""
        size, group = self.head_dim, self.num_key_value_groups
        if not (readable(keys, heads, size) and readable(values, heads, size) and keys.shape == values.shape):
            return None
        if queries.numel() != heads * group * size:
            return None
        tokens = keys.shape[2]
        if torch.get_num_threads() > 1 and queries.numel() * tokens > _ALONE:
            return None
        out, scores = torch.empty_like(queries), queries.new_empty(attention_room(group, tokens))
        kernels().attend(
            queries.data_ptr(), keys.data_ptr(), values.data_ptr(), out.data_ptr(), scores.data_ptr(), heads, group,
            tokens, size, keys.stride(1), keys.stride(2), values.stride(1), values.stride(2), self.scaling,
        )  # fmt: skip
        return out


def positions_fit(positions: Any, size: int) -> bool:
    """Whether cosines and sines are those of one token."""
    return positions is not None and all(unseen(part) and part.numel() == size for part in positions)


def _head_norms(module: Any) -> list[Any]:
    return [module._modules[name] for name in ("q_norm", "k_norm") if name in module._modules]


def _normed(norm: Any, size: int) -> bool:
    return isinstance(norm, QuickNorm) and untouched(norm) and is_vector(norm._parameters["weight"], size)  # type: ignore[arg-type]


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


def readable(states: Any, heads: int, size: int) -> bool:
    """Whether kernels can read the keys or values of one sequence, float32 (1, heads, tokens, size)."""
    return (
        type(states) is torch.Tensor
        and states.dtype is torch.float32
        and states.is_cpu
        and states.ndim == 4
        and states.shape[:2] == (1, heads)
        and states.shape[3] == size
        and states.stride(3) == 1
        and states.shape[2] > 0
    )
