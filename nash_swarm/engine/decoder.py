"""Whole decoders: for one token all layers are one call, and only what stands before and after them is torch."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.engine.attention import positions_fit
from nash_swarm.engine.decoder_layer import QuickDecoderLayer
from nash_swarm.engine.growing import GrowingCache
from nash_swarm.engine.quick import Quick, unseen, untouched
from nash_swarm.engine.recognise import Pattern
from nash_swarm.engine.stack import Stack
from nash_swarm.engine.trial import Draw, NotQuick, Pairs

_CAPTURES = ("output_attentions", "output_hidden_states")
_NAME = "_nash_swarm_stack"


class QuickDecoder(Quick):
    """`LlamaModel` and its likes over a cache that grows, if all their layers are quick; one token."""

    pattern = Pattern(
        parts=frozenset({"embed_tokens", "layers", "norm", "rotary_emb"}),
        arguments=frozenset({"input_ids", "attention_mask", "position_ids", "cache", "inputs_embeds", "use_cache"}),
        harmless=frozenset({"cache_position", *_CAPTURES, "return_dict"}),
    )
    config: Any

    @classmethod
    def resembles(cls, module: Any) -> bool:
        """Whether the module has embeddings and layers."""
        return {"embed_tokens", "layers"} <= set(module._modules)

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """See `Quick.mismatch`."""
        if (reason := cls.pattern.mismatch(module)) is not None:
            return reason
        slow = next((k for k, layer in enumerate(module.layers) if not isinstance(layer, QuickDecoderLayer)), None)
        return None if slow is None else f"its layer {slow} is taken by its own code"

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: Any = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the module's own."""
        past = past_key_values if cache is None else cache
        if self._may(input_ids, inputs_embeds, attention_mask, past, use_cache, kwargs):
            x = self._embedded(input_ids) if inputs_embeds is None else inputs_embeds
            out = self._run(x, position_ids, past)
            if out is not None:
                return self._output(out, past)
            input_ids, inputs_embeds = None, x
        return self._own(input_ids, attention_mask, position_ids, past, inputs_embeds, use_cache, kwargs)

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        from transformers.cache_utils import DynamicCache

        if (window := self._window()) is not None:
            raise NotQuick(window)
        quick, own = DynamicCache(), DynamicCache()
        embeddings: Any = self._modules["embed_tokens"]
        for past in (quick, own):
            self._own(draw.token(1), None, None, past, None, True, {})
        last = max(4, min(4096, getattr(self.config, "max_position_embeddings", None) or 4096) - 1)
        for step in range(4):
            ids, x, place = draw.token(embeddings.num_embeddings), None, None
            if step == 2:
                ids, x = None, draw.normal(1, 1, embeddings.embedding_dim)  # type: ignore[assignment]
            elif step == 3:
                place = torch.full((1, 1), last)
            expected = self._own(ids, None, place, own, x, True, {})
            out = self._run(self._embedded(ids) if x is None else x, place, quick)
            if out is None:
                raise NotQuick("the kernels cannot call its layers together")
            found = self._output(out, quick)
            if type(found) is not type(expected) or set(found) != set(expected):
                raise NotQuick(f"its own code gives {', '.join(expected)}")
            yield found[0], expected[0]
        for ours, theirs in zip(quick.layers, own.layers, strict=True):
            yield ours.keys, theirs.keys
            yield ours.values, theirs.values
        if quick.get_seq_length() != own.get_seq_length():
            raise NotQuick("its own code counts tokens in another way")

    def _own(
        self, ids: Any, mask: Any, positions: Any, past: Any, embeds: Any, use_cache: Any, kwargs: dict[str, Any]
    ) -> Any:
        own = super().forward
        named = {self.cache_argument: past}
        return own(
            input_ids=ids, attention_mask=mask, position_ids=positions, inputs_embeds=embeds, use_cache=use_cache,
            **named, **kwargs,
        )  # fmt: skip

    def _embedded(self, ids: Any) -> Any:
        return self._modules["embed_tokens"](ids)  # type: ignore[misc]

    def _may(self, ids: Any, embeds: Any, mask: Any, past: Any, use_cache: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this is one token after others that it sees all, and nothing is asked for but what comes out."""
        given = ids if embeds is None else embeds
        return (
            not torch.compiler.is_compiling()
            and (ids is None) != (embeds is None)
            and given.shape[:2] == (1, 1)
            and GrowingCache.is_known(past)
            and (tokens := past.get_seq_length()) > 0
            and _hides_nothing(mask, tokens + 1)
            and (self.config.use_cache if use_cache is None else use_cache)
            and kwargs.keys() <= {"return_dict", "cache_position", *_CAPTURES}
            and kwargs.get("return_dict", getattr(self.config, "return_dict", True)) is not False
            and not any(kwargs.get(name, getattr(self.config, name, False)) for name in _CAPTURES)
            and getattr(self.config, "is_causal", None) is None
            and self._window() is None
        )

    def _window(self) -> str | None:
        """Whether tokens see only some of those before them."""
        kinds = getattr(self.config, "layer_types", None)
        if kinds is not None:
            other = next((kind for kind in kinds[: self.config.num_hidden_layers] if kind != "full_attention"), None)
            return None if other is None else f"it has layers of {other}"
        window = getattr(self.config, "sliding_window", None)
        return None if window is None else f"its tokens see only the {window} before them"

    def _run(self, x: Any, position_ids: Any, past: Any) -> torch.Tensor | None:
        """What comes out of the last norm; `None` if the layers must do it, which then have not begun."""
        if not unseen(x) or x.ndim != 3:
            return None
        if position_ids is None:
            position_ids = torch.full((1, 1), past.get_seq_length(), device=x.device)
        if position_ids.shape != (1, 1):
            return None
        positions = self._modules["rotary_emb"](x, position_ids=position_ids)  # type: ignore[misc]
        stack = self._stack(x, positions)
        if stack is None or not positions_fit(positions, stack.size):
            return None
        cache = GrowingCache.of(past, len(stack.layers), stack.heads, stack.size)
        if cache is None:
            return None
        out = stack.run(x, positions, cache)
        cache.add(past.layers)
        normed: torch.Tensor = self._modules["norm"](out)  # type: ignore[misc]
        return normed

    def _stack(self, x: torch.Tensor, positions: Any) -> Stack | None:
        layers = list(self._modules["layers"]._modules.values())[: self.config.num_hidden_layers]  # type: ignore[union-attr]
        stack = self.__dict__.get(_NAME)
        if not isinstance(stack, Stack) or not stack.holds(layers):
            stack = self.__dict__[_NAME] = _made(layers, x, positions)
        if stack is None or x.numel() != stack.hidden:
            return None
        return stack

    def _output(self, states: torch.Tensor, past: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=states, **{self.cache_argument: past})


def _hides_nothing(mask: Any, tokens: int) -> bool:
    """Whether a mask of transformers' lets one token see all `tokens`, itself among them."""
    if mask is None:
        return True
    return isinstance(mask, torch.Tensor) and mask.shape == (1, tokens) and bool(mask.all())


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
