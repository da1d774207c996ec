"""A row's product has the same bits whatever rows are beside it, on any threads, with and without gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layouts import Case, cases
from support.packed import linear

from nash_swarm.quantizers.runtime.cpu import tuning


@given(
    cases(per_weight=False),
    st.sampled_from(["int8", "int16", "fp32"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_products(case: Case, activations: str, dtype: torch.dtype, tokens: int, threads: int, seed: int) -> None:
    layer = linear(case, bias=bool(seed % 2))
    layer.activations = activations
    x = torch.randn(tokens, case.layout.columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        alone = torch.cat([layer(x[row : row + 1].clone()) for row in range(tokens)])
        # or matrices as small as these would never be shared out
        patch.setattr(tuning, "SHARE_SECONDS", 0.0)
        torch.set_num_threads(threads)
        try:
            assert torch.equal(layer(x), alone)
            assert torch.equal(layer(x.unsqueeze(1)).squeeze(1), alone)
            with torch.enable_grad():
                assert torch.equal(layer(x.clone().requires_grad_()).detach(), alone)
        finally:
            torch.set_num_threads(before)
