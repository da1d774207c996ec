"""Latent matrices: they start as the packed matrix, end as one, and go down the gradient in between."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from support.layouts import Case, cases
from support.packed import pack, some_case

from nash_swarm.errors import UsageError
from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.scale_ranges import PLACES, ScaleRanges
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.tuning.latent import Adam, LatentMatrix
from nash_swarm.tuning.latent_modules import LatentEmbedding, LatentLinear


def repacked(latent: LatentMatrix, case: Case) -> PackedTensor:
    return case.layout.format.pack(latent.rounded(), case.agent_widths, case.layout, case.permutation, case.strategies)


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
        latent.add_gradient(torch.from_numpy(rng.standard_normal(latent.shape).astype(np.float32)))
        latent.step(Adam(scales=1.5, zeros=0.9))
    assert np.array_equal(latent.weight().numpy(), repacked(latent, case).dequantize())


@pytest.mark.parametrize("levels", get_args(Levels))
@pytest.mark.parametrize("whole", [True, False])
def test_steps_are_those_of_torch(levels: Levels, whole: bool) -> None:
    """Straight-through gradients and Adam, written with torch's autograd and optimizer."""
    case = some_case(seed=3, levels=levels)
    packed = pack(case)
    latent, adam, tables = LatentMatrix(packed), Adam(scales=0.5, zeros=0.3), level_tables(levels)
    latent.whole_scales = whole
    exact = torch.from_numpy(latent.widths == HALF)
    width = latent.widths.clip(max=8)
    tops = torch.from_numpy((2.0**width - 1).astype(np.float32))
    group = np.arange(case.layout.columns) // case.layout.group_size
    codes = torch.from_numpy(tables.codes[width[:, group], latent.rounded().codes])
    zero, zero_step = (torch.from_numpy(part) for part in (tables.zeros[width, 0], np.diff(tables.zeros)[width, 0]))
    ranges = ScaleRanges.holding(packed.scale_codes[: case.layout.rows], latent.widths, case.layout)
    lowest = torch.from_numpy(ranges.first(latent.widths)).float()
    strides = torch.from_numpy(ranges.strides[:, None]).float()
    highest = (lowest + strides * (PLACES - 1)).clamp_max(255)
    scales, zeros = (torch.from_numpy(part.copy()).requires_grad_() for part in (latent.scale_codes, latent.zeros))
    optimizers = [
        torch.optim.Adam([value], lr=rate, betas=(adam.beta1, adam.beta2), eps=adam.epsilon)
        for value, rate in ((scales, adam.scales), (zeros, adam.zeros))
    ]

    def straight(value: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
        nearest = torch.minimum(torch.floor(value + 0.5).clamp_min(0), top)
        return value + (nearest - value).detach()

    rng = np.random.default_rng(5)
    for _ in range(4):
        used = scales
        if whole:
            used = lowest + strides * straight((scales - lowest) / strides, torch.tensor(PLACES - 1.0))
        scale = float(packed.base) * torch.exp2(used * (-1 / 16))
        got = (codes - (zero + zero_step * straight(zeros, tops))[:, group]) * scale[:, group]
        got = torch.where(exact[:, group], torch.from_numpy(packed.dequantize()[:, packed.permutation]), got)
        order = np.argsort(packed.permutation)
        torch.testing.assert_close(latent.weight(), got[:, order].detach(), rtol=1e-4, atol=1e-6)
        for _ in range(2):  # gradients of two windows add up
            slope = torch.from_numpy(rng.standard_normal(latent.shape).astype(np.float32))
            latent.add_gradient(slope[:, order])
            (torch.where(exact[:, group], 0.0, got) * slope).sum().backward(retain_graph=True)
        latent.step(adam)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            zeros.copy_(torch.where(exact, zeros, zeros.clamp_min(-0.5).minimum(tops + 0.5)))
            scales.copy_(scales.clamp_min(lowest).minimum(highest))
    np.testing.assert_allclose(latent.scale_codes, scales.detach(), atol=2e-3)
    np.testing.assert_allclose(latent.zeros, zeros.detach(), atol=2e-3)


def slopes(gradient: torch.Tensor, latent: LatentMatrix, order: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """NumPy twin of `add_slopes`, for even levels."""
    stored = gradient.numpy()[:, order]
    starts = np.arange(0, latent.shape[1], latent.layout.group_size)
    sums = [np.add.reduceat(each, starts, axis=1) for each in (stored * latent.rounded().codes, stored)]
    return np.where((latent.widths == HALF)[:, :, None], 0, np.stack(sums, axis=2)).astype(np.float32)


def test_modules_multiply_look_up_and_pass_gradients_on() -> None:
    case = some_case(half=False)
    packed = pack(case)
    latent = LatentMatrix(packed)
    weight = latent.weight().requires_grad_()
    x = torch.randn(2, 3, case.layout.columns, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bias = torch.nn.Parameter(torch.arange(case.layout.rows).float())
    LatentLinear(latent, torch.float32, bias)(x).square().sum().backward()
    found, latent.slopes = latent.slopes, None
    x_gradient, bias_gradient = x.grad, bias.grad
    x.grad = bias.grad = None
    torch.nn.functional.linear(x, weight, bias).square().sum().backward()
    assert found is not None and weight.grad is not None
    np.testing.assert_allclose(found, slopes(weight.grad, latent, packed.permutation), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(x_gradient, x.grad)
    torch.testing.assert_close(bias_gradient, bias.grad)

    weight.grad = None
    index = torch.tensor([[1, 5, 1], [0, 47, 2]])
    LatentEmbedding(latent, torch.bfloat16)(index).float().sum().backward()
    torch.nn.functional.embedding(index, weight).sum().backward()
    assert latent.slopes is not None
    np.testing.assert_allclose(latent.slopes, slopes(weight.grad, latent, packed.permutation), rtol=1e-4)


def test_a_first_layer_learns_though_its_input_asks_for_no_gradient() -> None:
    latent = LatentMatrix(pack(some_case()))
    LatentLinear(latent, torch.float32)(torch.ones(1, latent.layout.columns)).sum().backward()
    assert latent.slopes is not None


def test_single_weights_cannot_be_tuned() -> None:
    with pytest.raises(UsageError, match="parameter granularity"):
        LatentMatrix(pack(some_case(per_weight=True)))
