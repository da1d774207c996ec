"""Labels sampled from the model: squared gradients estimate the Fisher information; samples depend on the sequence."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from support.models import tiny_llama

import nash_swarm as ns
from nash_swarm.calibration.collect import collecting
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.calibration.streaming import BlockStream
from nash_swarm.damage.fisher import Fisher
from nash_swarm.errors import UsageError
from nash_swarm.models.tasks import NextToken
from nash_swarm.models.walk import find_matrices


def head_statistics(model: torch.nn.Module, tokens: torch.Tensor, sampled: bool) -> Statistics:
    stream = BlockStream(model, tokens)
    stream.sampled = sampled
    stream.keep_all()
    head = [matrix for matrix in find_matrices(model) if matrix.name == "lm_head"]
    with collecting(model, head) as found:
        loss = stream.head_backward()
    with torch.no_grad():
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    assert loss == pytest.approx(float(expected), rel=1e-5), "the loss that is told is that of the text"
    return found["lm_head"]


def test_squared_gradients_of_logits_are_those_of_the_models_own_predictions() -> None:
    model = tiny_llama(tied=False).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # predictions far from uniform
    vocabulary = model.config.vocab_size
    tokens = torch.from_numpy(np.random.default_rng(0).integers(1, vocabulary, (256, 32)))
    with torch.no_grad():
        p = model(tokens).logits[:, :-1].softmax(-1).flatten(0, 1)
    # the gradient is p - onehot(label): its expected square is p (1 - p) if the label is drawn from p
    expected = (p * (1 - p)).sum(0)
    drawn = head_statistics(model, tokens, sampled=True).outputs
    told = head_statistics(model, tokens, sampled=False).outputs
    assert drawn is not None and told is not None
    assert float(drawn.sum() / expected.sum()) == pytest.approx(1, abs=0.03)
    assert float(told.sum() / expected.sum()) > 1.1
    frequent = expected > expected.quantile(0.9)
    assert torch.allclose(drawn[frequent], expected[frequent], rtol=0.5)


def test_what_is_drawn_for_a_window_is_its_own() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, ids = torch.randn(4, 16, 50, generator=rng), torch.randint(0, 50, (4, 16), generator=rng)
    task = NextToken()
    parts = [task.sampled_loss(logits[n : n + 1], ids[n : n + 1]) for n in range(4)]
    assert torch.allclose(task.sampled_loss(logits, ids), sum(parts, torch.zeros(())))
    assert float(task.sampled_loss(logits[:1], ids[1:2])) != float(parts[0])


@pytest.mark.parametrize("labels", ["model", "text"])
def test_games_say_whose_labels_they_were_measured_with(labels: Literal["model", "text"]) -> None:
    model = tiny_llama(tied=True)
    tokens = np.random.default_rng(0).integers(1, model.config.vocab_size, (4, 32)).astype(np.int32)
    games = [ns.measure(model, tokens=tokens, damage=Fisher(labels=labels), quiet=True) for _ in range(2)]
    assert np.array_equal(games[0].damage, games[1].damage)
    assert games[0].provenance["damage_settings"]["labels"] == labels
    other = ns.measure(model, tokens=tokens, damage=Fisher(labels="text" if labels == "model" else "model"), quiet=True)
    assert not np.array_equal(games[0].damage, other.damage)
    assert games[0].provenance["calibration_loss"] == pytest.approx(other.provenance["calibration_loss"])


def test_unknown_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="choose model or text"):
        Fisher(labels="others")  # type: ignore[arg-type]
