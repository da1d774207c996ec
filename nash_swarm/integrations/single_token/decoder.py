"""Whole decoders: for one token all layers are one call, and only what stands before and after them is torch."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from nash_swarm.integrations.single_token.attention import positions_fit
from nash_swarm.integrations.single_token.decoder_layer import QuickDecoderLayer
from nash_swarm.integrations.single_token.growing import GrowingCache
from nash_swarm.integrations.single_token.quick import Quick, unseen, untouched
from nash_swarm.integrations.single_token.recognise import code_of, runs
from nash_swarm.integrations.single_token.stack import Stack

CODES = {
    "dd47fc6dd6ed820a": "all",  # Llama
    "a20c59e141641c74": "config",  # Mistral
    "a4e04405d94dd416": "layers",  # Qwen2 and 3
}
"""Known ones, and how far their tokens see: of all before them, or of as many as the config or a layer's kind says."""
_CAPTURES = ("output_attentions", "output_hidden_states")
_NAME = "_nash_swarm_stack"


class QuickDecoder(Quick):
    """`LlamaModel`, its likes and their namesakes over a cache that grows, if all their layers are quick; one token."""

    config: Any
    has_sliding_layers: bool

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether the module is one."""
        known = any(runs(module, code) for code in CODES)
        return known and all(isinstance(layer, QuickDecoderLayer) for layer in module.layers)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the module's own."""
        if self._may(input_ids, inputs_embeds, past_key_values, kwargs):
            x = self._modules["embed_tokens"](input_ids) if inputs_embeds is None else inputs_embeds  # type: ignore[misc]
            if position_ids is None:
                position_ids = torch.full((1, 1), past_key_values.get_seq_length(), device=x.device)
            out = self._decode(x, attention_mask, position_ids, past_key_values)
            if out is not None:
                return self._output(self._modules["norm"](out), past_key_values, use_cache)  # type: ignore[misc]
            input_ids, inputs_embeds = None, x
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )

    def _may(self, ids: Any, embeds: Any, past: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this is one token after others, and nothing is asked for but what comes out."""
        given = ids if embeds is None else embeds
        return (
            not torch.compiler.is_compiling()
            and (ids is None) != (embeds is None)
            and given.shape[:2] == (1, 1)
            and past is not None
            and past.get_seq_length() > 0
            and kwargs.keys() <= {"return_dict", *_CAPTURES}
            and kwargs.get("return_dict", getattr(self.config, "return_dict", True)) is not False
            and not any(kwargs.get(name, getattr(self.config, name, False)) for name in _CAPTURES)
            and getattr(self.config, "is_causal", None) is None
            and self._sees_all()
        )

    def _sees_all(self) -> bool:
        sight = self._sight()
        if sight == "config":
            return self.config.sliding_window is None
        return sight == "all" or not self.has_sliding_layers

    def _sight(self) -> str:
        return CODES[code_of(type(self).__bases__[1].forward)]  # type: ignore[attr-defined]

    def _decode(self, x: Any, attention_mask: Any, position_ids: Any, past: Any) -> torch.Tensor | None:
        """What comes out of the last layer; `None` if the layers must do it, which then have not begun."""
        if not unseen(x) or x.ndim != 3 or isinstance(attention_mask, dict):
            return None
        mask = self._names()["create_causal_mask"](
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past,
            position_ids=position_ids,
        )
        positions = self._modules["rotary_emb"](x, position_ids=position_ids)  # type: ignore[misc]
        stack = None if mask is not None else self._stack(x, positions)
        if stack is None or not positions_fit(positions, stack.size):
            return None
        cache = GrowingCache.of(past, len(stack.layers), stack.heads, stack.size)
        if cache is None:
            return None
        out = stack.run(x, positions, cache)
        cache.add(past.layers)
        return out

    def _stack(self, x: torch.Tensor, positions: Any) -> Stack | None:
        layers = list(self._modules["layers"]._modules.values())[: self.config.num_hidden_layers]  # type: ignore[union-attr]
        stack = self.__dict__.get(_NAME)
        if not isinstance(stack, Stack) or not stack.holds(layers):
            stack = self.__dict__[_NAME] = _made(layers, x, positions)
        if stack is None or x.numel() != stack.hidden:
            return None
        return stack

    def _output(self, states: torch.Tensor, past: Any, use_cache: Any) -> Any:
        use_cache = self.config.use_cache if use_cache is None else use_cache
        shown = past if use_cache or self._sight() == "all" else None
        return self._names()["BaseModelOutputWithPast"](last_hidden_state=states, past_key_values=shown)

    def _names(self) -> dict[str, Any]:
        """Of the file that the module's own code stands in."""
        return inspect.unwrap(type(self).__bases__[1].forward).__globals__  # type: ignore[attr-defined]


def _made(layers: list[Any], x: torch.Tensor, positions: Any) -> Stack | None:
    # what a layer's parts may, it may itself; but here nobody calls it
    if not layers or not untouched(*layers) or not all(isinstance(layer, QuickDecoderLayer) for layer in layers):
        return None
    plans = []
    for layer in layers:
        plan = layer.plan(x, positions, None, {})
        if plan is None:
            return None
        plans.append(plan)
    return Stack(layers, plans) if Stack.fits(layers, plans) else None
