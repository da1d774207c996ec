"""Decoder layers as a whole: two compiled calls, between which the cache takes the keys and values of the token."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.engine.attention import QuickAttention
from nash_swarm.engine.gated import QuickGatedMlp
from nash_swarm.engine.norm import QuickNorm
from nash_swarm.engine.quick import Quick, untouched
from nash_swarm.engine.recognise import Pattern
from nash_swarm.engine.trial import FAR, Draw, NotQuick, Pairs
from nash_swarm.quantizers.runtime.cpu.fused.decoder_layer import kernels
from nash_swarm.quantizers.runtime.layer_plan import LayerPlan, is_vector, plan_layer

_PARTS = {
    "self_attn": QuickAttention, "mlp": QuickGatedMlp, "input_layernorm": QuickNorm,
    "post_attention_layernorm": QuickNorm,
}  # fmt: skip


class QuickDecoderLayer(Quick):
    """`LlamaDecoderLayer` and its likes, if all that is in it is quick by itself; one token."""

    pattern = Pattern(
        parts=frozenset(_PARTS),
        settings=frozenset({"self_attn"}),
        arguments=frozenset({"hidden_states", "attention_mask", "position_ids", "cache", "position_embeddings"}),
        harmless=frozenset({"use_cache", "cache_position"}),
    )

    @classmethod
    def resembles(cls, module: Any) -> bool:
        """Whether the module has an attention and a network behind it."""
        return {"self_attn", "mlp"} <= set(module._modules)

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """See `Quick.mismatch`."""
        reason = cls.pattern.mismatch(module)
        return _slow_part(module._modules) if reason is None else reason

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = False,
        position_embeddings: Any = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As the module's own."""
        past = past_key_values if cache is None else cache
        kwargs |= {"position_ids": position_ids, "use_cache": use_cache}
        plan = None
        if not torch.compiler.is_compiling():
            plan = self.plan(hidden_states, position_embeddings, attention_mask, kwargs)
        if plan is None or not (plan.alone or torch.get_num_threads() == 1):
            return self._own(hidden_states, position_embeddings, attention_mask, past, kwargs)
        return self._run(plan, hidden_states, position_embeddings, past, kwargs)

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        from transformers.cache_utils import DynamicCache

        quick, own = DynamicCache(), DynamicCache()
        attention: Any = self._modules["self_attn"]
        for scale in (1.0, 1.0, 8.0, 1.0):
            x = scale * draw.normal(1, 1, attention.q_proj.in_features)
            positions, ids = draw.positions(attention.head_dim), torch.full((1, 1), FAR)
            kwargs = {"position_ids": ids, "use_cache": True}
            plan = self._planned()
            if plan is None:
                raise NotQuick("the kernels of a layer cannot be called for its sizes")
            expected = self._own(x, positions, None, own, kwargs)
            # without what is only passed on, beside which a difference would be small
            yield self._run(plan, x, positions, quick, {}) - x, expected - x

    def _own(self, x: torch.Tensor, positions: Any, mask: Any, past: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        own = super().forward
        named = {self.cache_argument: past}
        out: torch.Tensor = own(x, attention_mask=mask, position_embeddings=positions, **named, **kwargs)
        return out

    def _run(
        self, plan: LayerPlan, hidden_states: torch.Tensor, positions: Any, past: Any, kwargs: dict[str, Any]
    ) -> torch.Tensor:
        queries, keys, values = (hidden_states.new_empty(rows) for rows in plan.rows)
        room, out = hidden_states.new_empty(plan.room // 4), torch.empty_like(hidden_states)
        cosines, sines = positions
        kernels().before(
            plan.address, hidden_states.data_ptr(), cosines.data_ptr(), sines.data_ptr(), queries.data_ptr(),
            keys.data_ptr(), values.data_ptr(), room.data_ptr(),
        )  # fmt: skip
        attention: Any = self._modules["self_attn"]
        attended = attention.mix(queries, keys, values, past, kwargs)
        addresses = (attended.data_ptr(), out.data_ptr(), room.data_ptr())
        kernels().after(plan.address, hidden_states.data_ptr(), *addresses)
        return out

    def plan(self, x: torch.Tensor, positions: Any, mask: Any, kwargs: dict[str, Any]) -> LayerPlan | None:
        """What the kernels are called with; `None` if they cannot do what the layer does."""
        inner: Any = self._modules
        attention, mlp = inner["self_attn"], inner["mlp"]
        first, second = inner["input_layernorm"], inner["post_attention_layernorm"]
        if not (
            _slow_part(inner) is None
            and untouched(attention, mlp, first, second)
            and attention.may(x, positions, mask, kwargs)
            and mlp.may()
            and is_vector(first._parameters["weight"], x.numel())
            and is_vector(second._parameters["weight"], x.numel())
        ):
            return None
        return self._planned()

    def _planned(self) -> LayerPlan | None:
        inner: Any = self._modules
        attention, mlp = inner["self_attn"], inner["mlp"]
        a, m = attention._modules, mlp._modules
        layers = (
            a["q_proj"], a["k_proj"], a["v_proj"], a["o_proj"], m["gate_proj"], m["up_proj"], m["down_proj"]
        )  # fmt: skip
        known: LayerPlan | None = self.__dict__.get("_nash_swarm_plan")
        norms = (inner["input_layernorm"], inner["post_attention_layernorm"], *attention.norms())
        gains = [(norm._parameters["weight"], norm.variance_epsilon) for norm in norms]
        plan = plan_layer(known, layers, gains, attention.scaling, attention.head_dim)
        if plan is not known:
            self.__dict__["_nash_swarm_plan"] = plan
        return plan if plan.address else None


def _slow_part(inner: Any) -> str | None:
    """Which of a layer's parts, by name, is not quick by itself."""
    slow = next((name for name, kind in _PARTS.items() if not isinstance(inner.get(name), kind)), None)
    return None if slow is None else f"its {slow} is taken by its own code"
