"""What was asked for and a game cannot give is told in one line each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bench import Bench
from support.models import tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import DataError, LeftOutWarning, UsageError
from nash_swarm.game.rules import Rules

IDS = np.random.default_rng(0).integers(3, 101, (2, 32)).astype(np.int32)


def game_of(model: object, **settings: object) -> ns.BitGame:
    return ns.measure(model, tokens=IDS, damage="magnitude", granularity="layer", quiet=True, **settings)  # type: ignore[arg-type]


def said(game: ns.BitGame, **asked: object) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ns.solve(game, solver="greedy", **asked)  # type: ignore[arg-type]
    assert all(warning.category is LeftOutWarning for warning in found)
    return [str(warning.message) for warning in found]


def test_budgets_beyond_the_widest_width() -> None:
    game = game_of(tiny_llama(tied=False))
    most = game.largest_bits() / game.parameters
    (line,) = said(game, bits=60)
    assert line == (
        f"the budget of 60 bits/param cannot be used: the widest width, 8 bits, takes {most:.2f} bits per parameter; "
        "add 16 to --strategies"
    )
    assert said(game, bits=most) == []
    wide = game_of(tiny_llama(tied=False), strategies=(4, 16))
    (line,) = said(wide, bits=60)
    assert "16 bits, takes" in line and "--strategies" not in line


def test_single_weights_have_no_sixteen_bits() -> None:
    game = ns.measure(tiny_llama(tied=False), tokens=IDS, damage="magnitude", granularity="parameter",
                      strategies=(2, 4, 8), quiet=True)  # fmt: skip
    (line,) = said(game, bits=60)
    assert "--strategies" not in line


def test_sets_to_fuse() -> None:
    game = game_of(tiny_llama(tied=False))
    enough = {"bits": 10.0}
    assert said(game, rules=Rules(fuse=(("q_proj", "k_proj", "v_proj"),)), **enough) == []
    assert said(game, rules=Rules(fuse=(("q_proj", "k_proj", "qkv"),)), **enough) == [
        "fuse q_proj,k_proj,qkv: no layer is called qkv"
    ]
    assert said(game, rules=Rules(fuse=(("gate_proj", "gate"),)), **enough) == [
        "fuse gate_proj,gate: no layer is called gate",
        "fuse gate_proj,gate: model.layers.0.mlp.gate_proj has no sibling to be fused with, nor have 1 more",
    ]
    for rules in (Rules(fuse=(("a", "b"),)), Rules(keep={"nothing": 8}), Rules(forbid={"nothing": (2,)})):
        with pytest.raises(UsageError, match=r"no tensor (matches|has such a name)"):
            ns.solve(game, solver="greedy", rules=rules, **enough)
    assert said(game_of(tiny_gpt2()), rules=Rules(fuse=(("c_attn", "c_fc"),)), **enough)


def test_compress_says_each_once(bench: Bench, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ns.compress(
            str(bench.model), out=tmp_path / "out", bits=30, text=str(bench.text), windows=1, eval_windows=0,
            contest=False, damage="magnitude", granularity="layer", quantizer="rtn", effort="fast", quiet=True,
            rules=Rules(fuse=(("gate_proj", "gate"),)),
        )  # fmt: skip
    lines = [str(warning.message) for warning in found if warning.category is LeftOutWarning]
    assert len([line for line in lines if "cannot be used" in line]) == 1
    assert len([line for line in lines if line.startswith("fuse")]) == 2


def test_what_the_stages_left_out_stands_in_the_report(bench: Bench, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nash_swarm.artifacts.packed_model import read_report
    from nash_swarm.cli.main import app

    short = tmp_path / "short.txt"
    short.write_text(bench.text.read_text(encoding="utf-8")[:1500], encoding="utf-8")
    game, allocation, out = tmp_path / "game.npz", tmp_path / "allocation.json", tmp_path / "out"
    for words in (
        ["measure", bench.model, "--text", short, "--windows", 3, "--damage", "magnitude", "-o", game],
        ["solve", game, "--bits", 32, "--solver", "greedy", "-o", allocation],
        ["pack", bench.model, allocation, "--quantizer", "rtn", "-o", out],
    ):
        done = CliRunner().invoke(app, [*map(str, words), "-q"])
        assert done.exit_code == 0, done.output
    told = read_report(out)["left_out"]
    assert any("windows" in line for line in told) and any("32 bits" in line for line in told)


def test_an_allocation_of_another_model_of_the_same_shape_is_refused() -> None:
    model, other = tiny_llama(tied=False), tiny_llama(tied=False)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight[0] += 1
    game = game_of(model)
    allocation = ns.solve(game, bits=game.largest_bits() / game.parameters, solver="greedy")
    assert ns.pack(model, allocation, quantizer="rtn", quiet=True) is not None
    with pytest.raises(DataError, match="measured on another model"):
        ns.pack(other, allocation, quantizer="rtn", quiet=True)
