"""Decoder layers as a whole: two compiled calls, between which the cache takes the keys and values of the token."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.integrations.single_token.attention import QuickAttention
from nash_swarm.integrations.single_token.gated import QuickGatedMlp
from nash_swarm.integrations.single_token.norm import QuickNorm
from nash_swarm.integrations.single_token.quick import Quick, untouched
from nash_swarm.integrations.single_token.recognise import runs
from nash_swarm.quantizers.kernels.decoder_layer import kernels
from nash_swarm.quantizers.layer_plan import LayerPlan, is_vector, plan_layer

CODE = "1a8125909341e389"


class QuickDecoderLayer(Quick):
    """`LlamaDecoderLayer` and its namesakes, if all that is in it is quick by itself; one token."""

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether the module is one."""
        return runs(module, CODE) and _all_quick(module._modules)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = False,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As the module's own."""
        kwargs |= {"position_ids": position_ids, "use_cache": use_cache}
        plan = None
        if not torch.compiler.is_compiling():
            plan = self.plan(hidden_states, position_embeddings, attention_mask, kwargs)
        if plan is None or not (plan.alone or torch.get_num_threads() == 1):
            out: torch.Tensor = super().forward(
                hidden_states,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                **kwargs,
            )
            return out
        queries, keys, values = (hidden_states.new_empty(rows) for rows in plan.rows)
        room, out = hidden_states.new_empty(plan.room // 4), torch.empty_like(hidden_states)
        cosines, sines = position_embeddings
        kernels().before(
            plan.address, hidden_states.data_ptr(), cosines.data_ptr(), sines.data_ptr(), queries.data_ptr(),
            keys.data_ptr(), values.data_ptr(), room.data_ptr(),
        )  # fmt: skip
        attention: Any = self._modules["self_attn"]
        attended = attention.mix(queries, keys, values, past_key_values, kwargs)
        addresses = (attended.data_ptr(), out.data_ptr(), room.data_ptr())
        kernels().after(plan.address, hidden_states.data_ptr(), *addresses)
        return out

    def plan(self, x: torch.Tensor, positions: Any, mask: Any, kwargs: dict[str, Any]) -> LayerPlan | None:
        """What the kernels are called with; `None` if they cannot do what the layer does."""
        inner: Any = self._modules
        attention, mlp = inner["self_attn"], inner["mlp"]
        first, second = inner["input_layernorm"], inner["post_attention_layernorm"]
        if not (
            _all_quick(inner)
            and untouched(attention, mlp, first, second)
            and attention.may(x, positions, mask, kwargs)
            and mlp.may()
        ):
            return None
        gains: Any = (first._parameters["weight"], second._parameters["weight"])
        if not (is_vector(gains[0], x.numel()) and is_vector(gains[1], x.numel())):
            return None
        a, m = attention._modules, mlp._modules
        layers = (
            a["q_proj"], a["k_proj"], a["v_proj"], a["o_proj"], m["gate_proj"], m["up_proj"], m["down_proj"]
        )  # fmt: skip
        known: LayerPlan | None = self.__dict__.get("_nash_swarm_plan")
        norms = [(norm._parameters["weight"], norm.variance_epsilon) for norm in (first, second, *attention.norms())]
        plan = plan_layer(known, layers, norms, attention.scaling, attention.head_dim)
        if plan is not known:
            self.__dict__["_nash_swarm_plan"] = plan
        return plan if plan.address else None


def _all_quick(inner: Any) -> bool:
    """Whether a layer's parts, by name, are quick by themselves."""
    return (
        isinstance(inner["self_attn"], QuickAttention)
        and isinstance(inner["mlp"], QuickGatedMlp)
        and isinstance(inner["input_layernorm"], QuickNorm)
        and isinstance(inner["post_attention_layernorm"], QuickNorm)
    )
