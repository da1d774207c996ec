"""Attention of a batch, sequence by sequence, so that each comes to the bits that it would come to alone.

torch's attention takes another way where there is a mask, and the way of `fused.single_token` is another one again.
Their results differ in the last bit, which is enough for inputs rounded to 8 bits to jump from layer to layer. So the
padding of a sequence is cut off, and what is left is computed as transformers and the kernels compute a
sequence that is alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from nash_swarm.engine.padding import Padding
from nash_swarm.quantizers.runtime.cpu.fused.single_token import attention_room, kernels
from nash_swarm.sharing import share_rows

_SHARE = 1 << 18
"""Products of queries with keys that are worth another thread."""

Spans = tuple[tuple[int, int], ...]
"""Of `Padding`."""
Attend = Callable[..., tuple[torch.Tensor, Any]]
"""transformers' `sdpa_attention_forward`, its module given: queries, keys, values, mask to (batch, queries, heads,
size)."""


def rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotary positions, as transformers computes them, of x (batch, heads, tokens, size); the others (batch, tokens,
    rotary), of the first elements of each head."""
    rotary = cosines.shape[-1]
    x, rest = x[..., :rotary], x[..., rotary:]
    turned = torch.cat((-x[..., rotary // 2 :], x[..., : rotary // 2]), dim=-1)
    out = (x * cosines.unsqueeze(1)) + (turned * sines.unsqueeze(1))
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out


def attend_apart(
    attend: Attend, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor,
    padding: Padding, scale: float,
) -> torch.Tensor:  # fmt: skip
    """Attention over padded sequences; padding before a sequence comes to zero.

    Args:
        attend: what computes a sequence without padding.
        queries: (batch, heads, queries, size), rotated.
        keys, values: (batch, key heads, keys, size), all that are kept.
        mask: boolean (batch or 1, 1, queries, keys).
        padding: what it says.
        scale: of the products.

    Returns:
        (batch, queries, heads, size).
    """
    spans = padding.spans
    if one_token_each(queries, keys, values):
        return attend_one(queries, keys, values, spans, scale)
    if len(set(spans)) == 1:
        return _attend(attend, queries, keys, values, mask[:1], spans[0], padding)
    rows = [slice(row, row + 1) for row in range(len(spans))]
    masks = [mask[row] if len(mask) > 1 else mask for row in rows]
    return torch.cat(
        [
            _attend(attend, queries[row], keys[row], values[row], own, span, padding)
            for row, own, span in zip(rows, masks, spans, strict=True)
        ]
    )


def _attend(
    attend: Attend, queries: Any, keys: Any, values: Any, mask: Any, span: tuple[int, int], padding: Padding
) -> torch.Tensor:
    """Sequences with the same padding."""
    (first, past), offset = span, padding.offset
    count = queries.shape[2]
    begin, end = max(0, first - offset), min(count, past - offset)
    keys, values = keys[:, :, first:past], values[:, :, first:past]
    own = queries[:, :, begin:end]
    if first >= offset and (padding.window is None or past - first <= padding.window):
        parts = [attend(own, keys, values, None)[0]]
    else:
        parts = [attend(own, keys, values, mask[:, :, begin:end, first:past])[0]]
    if end < count:  # padding behind sees the whole sequence
        parts.append(attend(queries[:, :, end:], keys, values, None, is_causal=False)[0])
    out = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return functional.pad(out, (0, 0, 0, 0, begin, 0)) if begin else out


def one_token_each(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether this is a token of each sequence that `attend_one` can take."""
    return (
        queries.shape[2] == 1
        and keys.shape == values.shape
        and keys.shape[::3] == queries.shape[::3]
        and queries.shape[1] % keys.shape[1] == 0
        and keys.shape[2] > 0
        and all(type(x) is torch.Tensor and x.dtype is torch.float32 and x.is_cpu for x in (queries, keys, values))
        and keys.stride(3) == values.stride(3) == 1
    )


def attend_one(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans, scale: float
) -> torch.Tensor:
    """What `decoder_stack` does for one token of one sequence, for each sequence; arguments as of `attend_apart`."""
    if torch.is_grad_enabled() and any(states.requires_grad for states in (queries, keys, values)):
        out: torch.Tensor = _AttendOne.apply(queries, keys, values, spans, scale)  # type: ignore[no-untyped-call]
        return out
    return _attend_one(queries, keys, values, spans, scale)


def _attend_one(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans, scale: float
) -> torch.Tensor:
    batch, all_heads, _, size = queries.shape
    heads = keys.shape[1]
    group = all_heads // heads
    wide = queries.detach().reshape(batch, all_heads * size).contiguous()
    out = torch.empty_like(wide)
    attend = kernels().attend

    def some(first_row: int, past_row: int) -> None:
        for row in range(first_row, past_row):
            first, past = spans[row]
            scores = wide.new_empty(attention_room(group, past - first))
            key, value = (
                states.data_ptr() + 4 * (row * states.stride(0) + first * states.stride(2)) for states in (keys, values)
            )
            attend(
                wide.data_ptr() + 4 * row * all_heads * size, key, value, out.data_ptr() + 4 * row * all_heads * size,
                scores.data_ptr(), heads, group, past - first, size, keys.stride(1), keys.stride(2), values.stride(1),
                values.stride(2), scale,
            )  # fmt: skip

    longest = max(past - first for first, past in spans)
    share_rows(batch, some, smallest=1 + _SHARE // (all_heads * size * longest))
    return out.view(batch, 1, all_heads, size)


class _AttendOne(torch.autograd.Function):
    """The kernel, and a derivative made of torch's operations, so that it has derivatives of its own."""

    @staticmethod
    def forward(
        ctx: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(queries, keys, values)
        ctx.spans, ctx.scale = spans, scale
        return _attend_one(queries, keys, values, spans, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        queries, keys, values = ctx.saved_tensors
        batch, heads, tokens, size = keys.shape
        asked = queries.reshape(batch, heads, -1, size)
        place, spans = torch.arange(tokens), torch.tensor(ctx.spans)
        hidden = (place < spans[:, :1]) | (place >= spans[:, 1:])
        scores = (asked @ keys.transpose(2, 3) * ctx.scale).masked_fill(hidden[:, None, None], -torch.inf)
        shares, gradient = scores.softmax(-1), gradients[0].reshape(asked.shape)
        of_shares = gradient @ values.transpose(2, 3)
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * ctx.scale
        of_queries = (of_scores @ keys).reshape(queries.shape)
        return of_queries, of_scores.transpose(2, 3) @ asked, shares.transpose(2, 3) @ gradient, None, None
