"""Whole decoders: for one token all layers are one call, and only what stands before and after them is torch."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.engine.draw import Draw, NotFused, Pairs
from nash_swarm.engine.family import Family, windows
from nash_swarm.engine.fused import Fused, is_plain_inference, strange
from nash_swarm.engine.preallocated import PreallocatedCache
from nash_swarm.engine.stack import Positions, Stack, rotary_types

_CAPTURES = ("output_attentions", "output_hidden_states")
_NAME = "_nash_swarm_stack"
_PROBED = 1 << 24
"""Elements of keys that a trial of windows may take; longer windows are tried unfilled."""


class FusedDecoder(Fused):
    """A decoder all of whose layers are fused, over a cache that can be preallocated; one token."""

    config: Any

    @classmethod
    def mismatch(cls, module: Any, family: Family) -> str | None:
        """See `Fused.mismatch`; of its layers, too."""
        if (reason := strange(module, family.decoder_parts)) is not None:
            return reason
        if not family.gates:
            return "its MLPs are of a kind that no kernel computes"
        if windows(module.config, module.config.num_hidden_layers) is None:
            return f"it has layers of {', '.join(sorted(set(module.config.layer_types)))}"
        for k, layer in enumerate(getattr(module, family.layers)):
            if (reason := strange(layer, family.layer_parts)) is not None:
                return f"of its layer {k}: {reason}"
        return None

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
        """See `Fused.trial`."""
        from transformers.cache_utils import DynamicCache

        fused, own = DynamicCache(config=self.config), DynamicCache(config=self.config)
        embeddings: Any = self._modules[self.family.embedding]
        for past in (fused, own):
            self._own(draw.token(1), None, None, past, None, True, {})
        keys = own.layers[0].keys
        longest = max((window for window in windows(self.config, len(self._layers())) or () if window), default=0)
        if longest and longest * keys.numel() * len(own.layers) <= _PROBED:
            for ours, theirs in zip(fused.layers, own.layers, strict=True):
                states = [draw.normal(1, keys.shape[1], longest, keys.shape[3]) for _ in range(2)]
                ours.update(*states)
                theirs.update(*states)
        last = max(4, min(4096, getattr(self.config, "max_position_embeddings", None) or 4096) - 1)
        for step in range(4):
            ids, x, place = draw.token(embeddings.num_embeddings), None, None
            if step == 2:
                ids, x = None, draw.normal(1, 1, embeddings.embedding_dim)  # type: ignore[assignment]
            elif step == 3:
                place = torch.full((1, 1), last)
            expected = self._own(ids, None, place, own, x, True, {})
            out = self._run(self._embedded(ids) if x is None else x, place, fused)
            if out is None:
                raise NotFused("the kernels cannot call its layers together")
            found = self._output(out, fused)
            if type(found) is not type(expected) or set(found) != set(expected):
                raise NotFused(f"its own code gives {', '.join(expected)}")
            yield found[0], expected[0]
        for ours, theirs in zip(fused.layers, own.layers, strict=True):
            yield ours.keys, theirs.keys
            yield ours.values, theirs.values
        if fused.get_seq_length() != own.get_seq_length():
            raise NotFused("its own code counts tokens in another way")

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
        return self._modules[self.family.embedding](ids)  # type: ignore[misc]

    def _layers(self) -> list[Any]:
        layers: Any = self._modules[self.family.layers]
        return list(layers._modules.values())[: self.config.num_hidden_layers]

    def _may(self, ids: Any, embeds: Any, mask: Any, past: Any, use_cache: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this is one token after others that it sees all, and nothing is asked for but what comes out."""
        given = ids if embeds is None else embeds
        return (
            not torch.compiler.is_compiling()
            and (ids is None) != (embeds is None)
            and given.shape[:2] == (1, 1)
            and PreallocatedCache.is_known(past)
            and (tokens := past.get_seq_length()) > 0
            and _hides_nothing(mask, tokens + 1)
            and (self.config.use_cache if use_cache is None else use_cache)
            and kwargs.keys() <= {"return_dict", "cache_position", *_CAPTURES}
            and kwargs.get("return_dict", getattr(self.config, "return_dict", True)) is not False
            and not any(kwargs.get(name, getattr(self.config, name, False)) for name in _CAPTURES)
            and getattr(self.config, "is_causal", None) is None
        )

    def _run(self, x: Any, position_ids: Any, past: Any) -> torch.Tensor | None:
        """What comes out of the last norm; `None` if the layers must do it, which then have not begun."""
        if not is_plain_inference(x) or x.ndim != 3:
            return None
        if position_ids is None:
            position_ids = torch.full((1, 1), past.get_seq_length(), device=x.device)
        if position_ids.shape != (1, 1):
            return None
        positions = self._positions(x, position_ids)
        stack = self._stack(positions)
        if stack is None or x.numel() != stack.hidden or not stack.positions_fit(positions):
            return None
        cache = PreallocatedCache.of(past, stack.windows, stack.heads, stack.size)
        if cache is None:
            return None
        out = stack.run(x, positions, cache)
        cache.add(past.layers[: len(stack.layers)])
        normed: torch.Tensor = self._modules[self.family.norm](out)  # type: ignore[misc]
        return normed

    def _positions(self, x: torch.Tensor, position_ids: torch.Tensor) -> Positions:
        rotary: Any = self._modules[self.family.rotary]
        if not self.family.rotary_by_type:
            return [rotary(x, position_ids=position_ids)]
        return [rotary(x, position_ids, kind) for kind in rotary_types(self.family, self.config)]

    def _stack(self, positions: Positions) -> Stack | None:
        layers, stack = self._layers(), self.__dict__.get(_NAME)
        if not isinstance(stack, Stack) or not stack.holds(layers):
            stack = self.__dict__[_NAME] = Stack.of(layers, self.family, self.config, positions[0][0].numel())
        return stack

    def _output(self, states: torch.Tensor, past: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=states, **{self.cache_argument: past})


def _hides_nothing(mask: Any, tokens: int) -> bool:
    """Whether a mask of transformers' lets one token see all `tokens`, itself among them."""
    if mask is None:
        return True
    return isinstance(mask, torch.Tensor) and mask.shape == (1, tokens) and bool(mask.all())
