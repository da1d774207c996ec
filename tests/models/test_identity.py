"""Digests of weights tell models apart, and nothing else; `eval` refuses the reference of another model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import ARCHITECTURES
from support.bench import Bench
from support.coded import write_fp8
from support.models import tiny_gpt2, tiny_llama
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import read_report
from nash_swarm.cli.evaluating import check_reference
from nash_swarm.errors import NashSwarmWarning, UsageError
from nash_swarm.models.experts import prepare
from nash_swarm.models.identity import weights_digest
from nash_swarm.models.offload import offloaded
from nash_swarm.models.source import load_source


@pytest.mark.parametrize("make", [lambda: tiny_llama(tied=True), lambda: tiny_llama(tied=False), tiny_gpt2])
def test_in_memory_and_on_disk(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    disk = offloaded(tmp_path, AutoConfig.from_pretrained(tmp_path), tmp_path)
    assert weights_digest(disk) == weights_digest(model) == weights_digest(make())


def test_decoded_ones_too(tmp_path: Path) -> None:
    write_fp8(tiny_llama(tied=True), tmp_path, (32, 32))
    disk = offloaded(tmp_path, AutoConfig.from_pretrained(tmp_path), tmp_path)
    digest = weights_digest(load_source(str(tmp_path)).model)
    assert weights_digest(disk) == digest != weights_digest(tiny_llama(tied=True))


@pytest.mark.parametrize("name", ["mixtral", "rwkv"])
def test_before_and_after_it_is_prepared(name: str) -> None:
    model = ARCHITECTURES[name].make()
    digest = weights_digest(model)
    assert weights_digest(prepare(model)) == digest == weights_digest(ARCHITECTURES[name].make())


def test_tied_or_a_copy(tmp_path: Path) -> None:
    tied = tiny_llama(tied=True)
    loose = tiny_llama(tied=False)
    loose.load_state_dict(tied.state_dict())
    assert loose.lm_head.weight is not loose.model.embed_tokens.weight
    assert weights_digest(loose) == weights_digest(tied)


def test_other_weights() -> None:
    digests = {weights_digest(tiny_llama(tied=True, seed=seed)) for seed in range(3)}
    changed = tiny_llama(tied=True)
    with torch.no_grad():
        changed.model.layers[1].input_layernorm.weight[3] += 1e-3
    assert len(digests | {weights_digest(changed)}) == 4


def test_eval_refuses_another_reference(bench: Bench, tmp_path: Path) -> None:
    from nash_swarm.cli.main import app

    settings: dict[str, Any] = {"text": str(bench.text), "windows": 1, "eval_windows": 0, "contest": False, "bits": 8.0,
                                "damage": "magnitude", "quantizer": "rtn", "effort": "fast", "quiet": True}  # fmt: skip
    ns.compress(str(bench.model), out=tmp_path / "out", **settings)
    source = read_report(tmp_path / "out")["source"]
    original = AutoModelForCausalLM.from_pretrained(bench.model, dtype=torch.float32).eval()
    assert source == {"name": "model", "digest": weights_digest(original)}
    other = tmp_path / "other"
    shutil.copytree(bench.model, other)
    with torch.no_grad():
        original.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    original.save_pretrained(other)
    arguments = ["eval", str(tmp_path / "out"), "--text", str(bench.text), "--tokens", "64", "--json", "--reference"]
    done = CliRunner().invoke(app, [*arguments, str(bench.model)])
    assert done.exit_code == 0 and json.loads(done.stdout)["packed"]["kl"] < 1, done.output
    done = CliRunner().invoke(app, [*arguments, str(other)])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == (
        f"{other} is not the model that {tmp_path / 'out'} was packed from (model): its weights are others"
    )
    # in Python anything may be compared
    found = ns.evaluate(
        {"packed": ns.load(tmp_path / "out")}, np.arange(3, 35, dtype=np.int32)[None], reference=original, quiet=True
    )
    assert np.isfinite(found["packed"].kl)


@pytest.mark.parametrize("report", [{}, {"source": "model"}, {"source": {"name": "model"}}])
def test_packs_that_do_not_say(report: dict[str, Any]) -> None:
    with pytest.warns(NashSwarmWarning, match="out does not say what it was packed from: that it was MODEL is taken"):
        check_reference("out", report, "MODEL", tiny_llama(tied=True))
