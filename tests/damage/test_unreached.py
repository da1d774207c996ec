"""Experts that the router never selects: damage from the weights, in the unit of the selected ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import ARCHITECTURES, VOCABULARY

import nash_swarm as ns
from nash_swarm.damage.unreached import judge_unreached
from nash_swarm.errors import CalibrationWarning, DataError
from nash_swarm.models.experts import opened
from nash_swarm.quantizers.formats.known import cut

IDLE = 2
BUSY = (0, 1, 3, 4)


@pytest.fixture(scope="module")
def model() -> Any:
    """Five experts, two for each token; expert 2's logits are always the median, so it is never selected."""
    made = ARCHITECTURES["mixtral"].make(num_local_experts=5)
    for layer in made.model.layers:
        router = layer.mlp.gate.weight.data
        router[:] = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])[:, None] * router[0]
    return made


@pytest.fixture(scope="module")
def tokens() -> Any:
    return np.random.default_rng(0).integers(3, VOCABULARY, (6, 32)).astype(np.int32)


def measured(model: Any, tokens: Any, damage: str) -> tuple[ns.BitGame, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        game = ns.measure(model, tokens=tokens, damage=damage, group_size=32, quiet=True)
    return game, [str(warning.message) for warning in caught if warning.category is CalibrationWarning]


@pytest.mark.parametrize("damage", ["fisher", "activation"])
def test_an_expert_that_is_never_picked_falls_back_to_magnitude(
    model: Any, tokens: Any, damage: str, tmp_path: Path
) -> None:
    game, said = measured(model, tokens, damage)
    plain, nothing = measured(model, tokens, "magnitude")
    assert not nothing
    assert len(said) == 1 and "damage 'magnitude'" in said[0]
    # three of the four are named
    assert said[0].count(f".{IDLE}") == 3 and "and 1 more" in said[0]
    assert not any(f".{expert}" in said[0].replace("layers.0", "").replace("layers.1", "") for expert in BUSY)
    spans = {tensor.name: tensor.span for tensor in game.tensors}
    weights = {name: p.detach() for name, p in opened(model).named_parameters()}
    for layer in range(2):
        for projection in ("gate_up_proj", "down_proj"):
            experts = f"model.layers.{layer}.mlp.experts.{projection}"
            found = game.damage[spans[f"{experts}.{IDLE}"]]
            # the order of columns differs, so agents do; their sum does not
            relative = plain.damage[spans[f"{experts}.{IDLE}"]].sum(axis=0, dtype=np.float64)
            scale = found.sum(axis=0, dtype=np.float64) / relative
            np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
            assert (np.diff(found.sum(axis=0)) < 0).all()
            # it is as dear as the others, for weights of the same size
            others = [
                game.damage[spans[f"{experts}.{expert}"]].sum(axis=0, dtype=np.float64)[0]
                / float(weights[f"{experts}.{expert}.weight"].square().sum())
                for expert in BUSY
            ]
            mine = found.sum(axis=0, dtype=np.float64)[0] / float(weights[f"{experts}.{IDLE}.weight"].square().sum())
            assert min(others) / 2 < mine < max(others) * 2

    packed = ns.pack(model, ns.solve(game, bits=3.5), quiet=True)
    ns.save(packed, tmp_path / "packed")
    ids = torch.from_numpy(tokens[:2].astype(np.int64))
    with torch.no_grad():
        assert torch.equal(ns.load(tmp_path / "packed")(ids).logits, packed(ids).logits)


def test_a_text_that_reaches_nothing_is_refused(tokens: Any) -> None:
    layout = cut("x", "linear", (16, 32), "layer", group_size=32, ordered=False, start=0)
    with pytest.raises(DataError, match="no calibration token reaches any matrix"):
        judge_unreached(layout, np.ones((16, 32), np.float32), {})
