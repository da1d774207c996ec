"""Latent matrices: they start as the packed matrix, end as one, and go down the gradient in between."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from support.layouts import Case, cases
from support.packed import pack, some_case

from nash_swarm.errors import UsageError
from nash_swarm.game.layout import HALF
from nash_swarm.quantizers.grid import scale_table
from nash_swarm.quantizers.latent import Adam, LatentMatrix
from nash_swarm.quantizers.latent_modules import LatentEmbedding, LatentLinear
from nash_swarm.quantizers.packing import PackedTensor


def repacked(latent: LatentMatrix, case: Case) -> PackedTensor:
    return PackedTensor.pack(latent.rounded(), case.agent_widths, case.layout, case.permutation, case.strategies)


@given(cases(per_weight=False))
def test_nothing_changes_until_a_step_is_made(case: Case) -> None:
    packed = pack(case)
    latent = LatentMatrix(packed)
    assert np.array_equal(latent.weight().numpy(), packed.dequantize())
    assert np.array_equal(repacked(latent, case).buffer, packed.buffer)


@given(cases(per_weight=False, most=70))
def test_what_is_multiplied_with_is_what_can_be_packed(case: Case) -> None:
    latent = LatentMatrix(pack(case))
    rng = np.random.default_rng(0)
    for _ in range(3):
        latent.add_gradient(torch.from_numpy(rng.standard_normal(latent.codes.shape).astype(np.float32)))
        latent.step(Adam(codes=0.7, scales=1.5, zeros=0.9))
    assert np.array_equal(latent.weight().numpy(), repacked(latent, case).dequantize())


def test_steps_are_those_of_torch() -> None:
    """Straight-through gradients and Adam, written with torch's autograd and optimizer."""
    case = some_case(seed=3)
    packed = pack(case)
    latent, adam = LatentMatrix(packed), Adam(codes=0.2, scales=0.5, zeros=0.3)
    exact = torch.from_numpy(latent.widths == HALF)
    tops = torch.from_numpy((2.0 ** latent.widths.clip(max=8) - 1).astype(np.float32))
    group = torch.arange(case.layout.columns) // case.layout.group_size
    values = [torch.from_numpy(part.copy()) for part in (latent.codes, latent.scale_codes, latent.zeros)]
    codes, scales, zeros = (value.requires_grad_() for value in values)
    optimizers = [
        torch.optim.Adam([value], lr=rate, betas=(adam.beta1, adam.beta2), eps=adam.epsilon)
        for value, rate in zip(values, (adam.codes, adam.scales, adam.zeros), strict=True)
    ]

    def straight(value: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        whole = torch.minimum(torch.floor(value + 0.5).clamp_min(0), top)
        return value + (whole - value).detach()

    table = torch.from_numpy(scale_table(packed.base))
    rng = np.random.default_rng(5)
    for _ in range(4):
        slope = torch.from_numpy(rng.standard_normal(latent.codes.shape).astype(np.float32))
        latent.add_gradient(slope[:, np.argsort(packed.permutation)])
        latent.step(adam)
        whole = straight(scales, torch.tensor(255.0))
        scale = table[whole.detach().long()]
        # the derivative of 2^(-x / 16) by x, at the rounded x
        scale = scale + (whole - whole.detach()) * (-np.log(2) / 16) * scale
        got = (straight(codes, tops[:, group]) - straight(zeros, tops)[:, group]) * scale[:, group]
        (torch.where(exact[:, group], 0.0, got) * slope).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            codes.copy_(torch.where(exact[:, group], codes, codes.clamp_min(-0.5).minimum(tops[:, group] + 0.5)))
            zeros.copy_(torch.where(exact, zeros, zeros.clamp_min(-0.5).minimum(tops + 0.5)))
            scales.clamp_(0, 255)
    np.testing.assert_allclose(latent.codes, codes.detach(), atol=2e-3)
    np.testing.assert_allclose(latent.scale_codes, scales.detach(), atol=2e-3)
    np.testing.assert_allclose(latent.zeros, zeros.detach(), atol=2e-3)


def test_codes_stay_if_their_rate_is_zero() -> None:
    latent = LatentMatrix(pack(some_case()))
    before, scales = latent.codes.copy(), latent.scale_codes.copy()
    latent.add_gradient(torch.ones(latent.codes.shape))
    latent.step(Adam(codes=0, scales=0.5, zeros=0.5))
    assert np.array_equal(latent.codes, before)
    assert not np.array_equal(latent.scale_codes, scales)


def test_modules_multiply_look_up_and_pass_gradients_on() -> None:
    case = some_case(half=False)
    latent = LatentMatrix(pack(case))
    weight = latent.weight().requires_grad_()
    x = torch.randn(2, 3, case.layout.columns, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bias = torch.nn.Parameter(torch.arange(case.layout.rows).float())
    LatentLinear(latent, torch.float32, bias)(x).square().sum().backward()
    found, latent.gradient = latent.gradient, None
    x_gradient, bias_gradient = x.grad, bias.grad
    x.grad = bias.grad = None
    torch.nn.functional.linear(x, weight, bias).square().sum().backward()
    torch.testing.assert_close(found, weight.grad)
    torch.testing.assert_close(x_gradient, x.grad)
    torch.testing.assert_close(bias_gradient, bias.grad)

    weight.grad = None
    index = torch.tensor([[1, 5, 1], [0, 47, 2]])
    LatentEmbedding(latent, torch.bfloat16)(index).float().sum().backward()
    torch.nn.functional.embedding(index, weight).sum().backward()
    torch.testing.assert_close(latent.gradient, weight.grad)


def test_a_first_layer_learns_though_its_input_asks_for_no_gradient() -> None:
    latent = LatentMatrix(pack(some_case()))
    LatentLinear(latent, torch.float32)(torch.ones(1, latent.layout.columns)).sum().backward()
    assert latent.gradient is not None


def test_single_weights_cannot_be_tuned() -> None:
    with pytest.raises(UsageError, match="parameter granularity"):
        LatentMatrix(pack(some_case(per_weight=True)))
