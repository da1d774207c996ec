"""The student: equal to the packed model before the first step, for every architecture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import ARCHITECTURES, VOCABULARY
from support.bench import Bench

import nash_swarm as ns
from nash_swarm.errors import CalibrationWarning, UsageError
from nash_swarm.models.experts import prepare
from nash_swarm.models.source import Source, load_source
from nash_swarm.models.tasks import task_of
from nash_swarm.pipeline.tuning import tune
from nash_swarm.quantizers.runtime.modules import set_activations
from nash_swarm.recipe import Recipe, Tuning
from nash_swarm.tuning.student import Student, check_head

REFUSED = {
    "gemma2": "changes what comes out of its output head",
    "bart": "changes what comes out of its output head",
    "marian": "changes what comes out of its output head",
    **dict.fromkeys(("bert", "modernbert", "albert", "deberta"), "has no plain output head"),
}
QUICK = {"gpt2", "gemma3", "mamba", "mixtral", "opt-projected", "t5"}
_TUNED = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in ARCHITECTURES
    if name not in REFUSED
]


def head_inputs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Inputs of the output head."""
    seen: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**task_of(model).inputs(ids))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", _TUNED)
def test_a_student_is_the_packed_model_and_learns(name: str) -> None:
    model = ARCHITECTURES[name].make()
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCABULARY, (6, 32)).astype(np.int32)
    unseen = torch.from_numpy(rng.integers(3, VOCABULARY, (2, 24)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        game = ns.measure(model, tokens=tokens, damage="magnitude", group_size=32, quiet=True)
    packed = ns.pack(model, ns.solve(game, bits=3.5), quantizer="rtn", quiet=True)
    prepared = prepare(model)
    students = {dtype: Student(prepared, dtype) for dtype in (torch.bfloat16, torch.float32)}
    for student in students.values():
        student.become(packed, prepared)
        assert {tensor.name for tensor in game.tensors if tensor.kind != "embedding"} == set(student.matrices)
    set_activations(packed, "fp32")
    expected, original = head_inputs(packed, unseen), head_inputs(model, unseen)
    for dtype, student in students.items():
        with torch.no_grad():
            got = student.hidden(unseen)
        share = 0.2 if dtype is torch.bfloat16 else 0.01
        assert float((got - expected).norm()) < share * float((got - original).norm())

    before = head_inputs(packed, unseen)
    tuned = tune(model, packed, tokens, Tuning(steps=4, batch=2, check=1), quiet=True)
    assert torch.equal(head_inputs(packed, unseen), before) and torch.equal(head_inputs(model, unseen), original)
    assert tuned.history[tuned.step] == min(tuned.history.values())
    assert set(tuned.packed.state_dict()) == set(packed.state_dict())


@pytest.mark.parametrize("name", REFUSED)
def test_models_with_another_end_are_refused(name: str) -> None:
    model = ARCHITECTURES[name].make()
    before = set(model.state_dict())
    with pytest.raises(UsageError, match=REFUSED[name]):
        check_head(model)
    assert set(model.state_dict()) == before and type(model.get_output_embeddings()) in (type(None), torch.nn.Linear)


def test_tuning_reads_windows_as_long_as_the_model_can(bench: Bench, tmp_path: Path) -> None:
    model = ARCHITECTURES["gpt2"].make()
    tokenizer = load_source(str(bench.model)).tokenizer
    recipe = Recipe(tuning=Tuning(steps=2, batch=1, check=1, windows=3))
    done = ns.compress(
        Source(model, tokenizer, "short"), bits=3.5, recipe=recipe, windows=2, baselines=False,
        text=str(bench.text), eval_windows=1,
        damage="magnitude", quantizer="rtn", group_size=32, out=tmp_path / "out", quiet=True,
    )  # fmt: skip
    assert model.config.n_positions < 512 and set(done.tuning) == {0, 1, 2}
