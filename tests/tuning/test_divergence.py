"""KL in slices, and its gradients, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nash_swarm.tuning.divergence import Head, divergence


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sliced_divergence_is_torchs(tokens: int, with_bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(tokens)
    bias = torch.randn(97) if with_bias else None
    student_head, teacher_head = (Head(torch.randn(97, 24), bias, dtype) for _ in range(2))
    student, teacher = torch.randn(2, tokens, 24)
    found = divergence(student[None], student_head, teacher[None], teacher_head, gradient=True, train_head=True)

    hidden, weight = student.clone().requires_grad_(), student_head.weight.clone().requires_grad_()
    got = functional.log_softmax(functional.linear(hidden, weight, bias), -1)
    expected = functional.log_softmax(teacher_head.logits(teacher), -1)
    kl = functional.kl_div(got, expected, reduction="batchmean", log_target=True)
    kl.backward()
    assert found.kl == pytest.approx(float(kl.detach()), rel=1e-4)
    assert found.hidden is not None and found.hidden.shape == (1, tokens, 24)
    assert found.weight is not None and hidden.grad is not None and weight.grad is not None
    # steps of bfloat16 are 1/256
    tolerance = 0.01 if dtype is torch.bfloat16 else 1e-4
    for mine, theirs in ((found.hidden[0], hidden.grad), (found.weight, weight.grad)):
        torch.testing.assert_close(mine, theirs, rtol=2 * tolerance, atol=tolerance * float(theirs.abs().max()))


def test_a_model_does_not_diverge_from_itself() -> None:
    head, hidden = Head(torch.randn(50, 8)), torch.randn(3, 9, 8)
    found = divergence(hidden, head, hidden, head, gradient=True)
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.weight is None and found.hidden is not None and float(found.hidden.abs().max()) < 1e-6
