"""What is read off masks."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nash_swarm.engine.padding import Padding, read_padding


def mask_of(padding: Padding, queries: int, keys: int) -> torch.Tensor:
    """(batch, 1, queries, keys), by plain counting."""
    seen = torch.zeros(len(padding.spans), 1, queries, keys, dtype=torch.bool)
    for row, (first, past) in enumerate(padding.spans):
        for query in range(queries):
            for key in range(first, past):
                reach = padding.offset + query
                seen[row, 0, query, key] = key <= reach and (padding.window is None or key > reach - padding.window)
    return seen


@st.composite
def paddings(draw: st.DrawFn) -> tuple[Padding, int, int]:
    queries, before = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    keys, spans = queries + before, []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, keys - 1))
        spans.append((first, draw(st.integers(first + 1, keys))))
    return Padding(tuple(spans), before, draw(st.none() | st.integers(1, 9))), queries, keys


@given(paddings())
def test_what_is_read_is_what_the_mask_says(given_: tuple[Padding, int, int]) -> None:
    padding, queries, keys = given_
    mask = mask_of(padding, queries, keys)
    assume(mask.flatten(1).any(1).all())
    found = read_padding(mask, len(padding.spans), padding.window)
    assert found is not None
    assert torch.equal(mask_of(found, queries, keys), mask)


@given(paddings(), st.integers(0, 10**6))
def test_another_mask_is_not_taken_for_padding(given_: tuple[Padding, int, int], which: int) -> None:
    padding, queries, keys = given_
    mask = mask_of(padding, queries, keys)
    flat = mask.view(-1)
    flat[which % len(flat)] ^= True
    found = read_padding(mask, len(padding.spans), padding.window)
    assert found is None or torch.equal(mask_of(found, queries, keys), mask)


def test_masks_that_are_something_else() -> None:
    causal = mask_of(Padding(((0, 4),), 0), 4, 4)
    assert read_padding(causal, 1) == Padding(((0, 4),), 0)
    assert read_padding(causal, 3) == Padding(((0, 4),) * 3, 0)
    window = causal & ~causal.tril(-2)
    assert read_padding(window, 1) is None
    assert read_padding(window.clone(), 1, 2) == Padding(((0, 4),), 0, 2)
    assert read_padding(causal.float(), 1) is None
    assert read_padding(causal.expand(1, 2, 4, 4), 1) is None
    assert read_padding(torch.zeros(1, 1, 2, 2, dtype=torch.bool), 1) is None


def test_a_mask_that_changes_is_read_anew() -> None:
    mask = mask_of(Padding(((0, 4), (1, 4)), 0), 4, 4)
    assert read_padding(mask, 2) == Padding(((0, 4), (1, 4)), 0)
    mask[1, :, :, 1] = False
    assert read_padding(mask, 2) == Padding(((0, 4), (2, 4)), 0)
    with torch.inference_mode():
        other = mask_of(Padding(((0, 4),), 0), 4, 4)
        assert read_padding(other, 1) == Padding(((0, 4),), 0)
        other[..., 0] = False
        assert read_padding(other, 1) == Padding(((1, 4),), 0)
