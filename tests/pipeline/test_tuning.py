"""A packed model is trained on its grid: closer to the original, no larger, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from support.models import VOCABULARY, allocate, logits, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game import BitGame
from nash_swarm.pipeline.tuning import tune
from nash_swarm.quantizers.runtime.modules import PackedWeight
from nash_swarm.recipe import Tuning

QUICK = Tuning(steps=30, batch=8, check=10, scales=0.1, zeros=0.02)


@pytest.fixture(scope="module")
def windows() -> npt.NDArray[np.int32]:
    return np.random.default_rng(7).integers(0, VOCABULARY, (48, 32)).astype(np.int32)


def test_tuning_brings_every_model_closer_to_its_original(
    model: Any, game: BitGame, windows: npt.NDArray[np.int32], tmp_path: Path
) -> None:
    packed = ns.pack(model, allocate(game, share=0.05), quiet=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    buffers = {
        name: module.packed.clone() for name, module in packed.named_modules() if isinstance(module, PackedWeight)
    }
    done = tune(model, packed, windows, QUICK, quiet=True)
    assert done.history[done.step] == min(done.history.values()) < done.history[0]
    assert list(done.history) == [0, 10, 20, 30]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    changed = 0
    for name, buffer in buffers.items():
        assert torch.equal(packed.get_submodule(name).packed, buffer)
        assert len(done.packed.get_submodule(name).packed) == len(buffer)
        changed += not torch.equal(done.packed.get_submodule(name).packed, buffer)
    assert changed >= len(buffers) - 2  # tables that are only looked up stay as they are
    found = ns.evaluate({"before": packed, "after": done.packed}, windows, reference=model, quiet=True)
    assert found["after"].kl is not None and found["before"].kl is not None
    assert found["after"].kl < found["before"].kl
    ns.save(done.packed, tmp_path / "out")
    assert torch.equal(logits(ns.load(tmp_path / "out"), windows[:2]), logits(done.packed, windows[:2]))


def test_the_same_seed_gives_the_same_model(windows: npt.NDArray[np.int32]) -> None:
    model = tiny_llama(tied=True)
    packed = ns.pack(model, allocate(ns.measure(model, tokens=windows[:4], quiet=True)), quiet=True)
    first, second, other = (tune(model, packed, windows, QUICK, seed=seed, quiet=True) for seed in (1, 1, 2))
    assert first.history == second.history != other.history
    for name, tensor in first.packed.state_dict().items():
        assert torch.equal(tensor, second.packed.state_dict()[name])


def test_a_loaded_model_is_tuned_as_the_one_that_was_saved(
    model: Any, packed: Any, windows: npt.NDArray[np.int32], tmp_path: Path
) -> None:
    ns.save(packed, tmp_path / "out")
    settings = Tuning(steps=4, check=2)
    fresh, loaded = (tune(model, each, windows, settings, quiet=True) for each in (packed, ns.load(tmp_path / "out")))
    assert fresh.history == loaded.history
    assert torch.equal(logits(fresh.packed, windows[:2]), logits(loaded.packed, windows[:2]))


def test_no_step_changes_nothing(model: Any, packed: Any, windows: npt.NDArray[np.int32]) -> None:
    done = tune(model, packed, windows, Tuning(steps=0), quiet=True)
    assert done.step == 0
    assert torch.equal(logits(done.packed, windows[:2]), logits(packed, windows[:2]))


def test_the_first_state_is_kept_if_steps_do_harm(model: Any, packed: Any, windows: npt.NDArray[np.int32]) -> None:
    done = tune(model, packed, windows, Tuning(steps=4, scales=60.0, zeros=5.0, check=2), quiet=True)
    assert done.step == 0
    assert torch.equal(logits(done.packed, windows[:2]), logits(packed, windows[:2]))


def test_what_cannot_be_tuned_is_refused(windows: npt.NDArray[np.int32]) -> None:
    model = tiny_llama(tied=False)
    packed = ns.pack(model, allocate(ns.measure(model, tokens=windows[:4], quiet=True)), quiet=True)
    with pytest.raises(DataError, match="two calibration windows"):
        tune(model, packed, windows[:1], quiet=True)
    with pytest.raises(DataError, match="outside the vocabulary"):
        tune(model, packed, windows + VOCABULARY, quiet=True)
    with pytest.raises(UsageError, match="batch"):
        Tuning(batch=0)
    fine = ns.measure(model, tokens=windows[:4], granularity="parameter", quiet=True)
    with pytest.raises(UsageError, match="parameter granularity"):
        tune(model, ns.pack(model, allocate(fine), quiet=True), windows, quiet=True)
    capped = _Capped(model.config).eval()
    with pytest.raises(UsageError, match="changes what comes out"):
        tune(capped, packed, windows, quiet=True)


class _Capped(transformers.LlamaForCausalLM):
    """A model that does to its logits what Gemma 2 does."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = torch.tanh(output.logits / 3) * 3
        return output
