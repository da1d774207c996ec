"""The stages through their files, each with `--json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nash_swarm as ns
from nash_swarm import load_allocation


def test_measure_says_what_any_budget_must_hold(stages: Any) -> None:
    told = stages.measured
    assert told["smallest_bits_per_parameter"] < 5 < told["largest_bits_per_parameter"]
    damage = [told["uniform_damage"][bits] for bits in ("2", "3", "4", "5", "6", "8")]
    assert damage == sorted(damage, reverse=True)
    assert told["damage_unit"] == "nats per token"


def test_solve_stays_inside_the_budget(stages: Any) -> None:
    proof = stages.solved["certificate"]
    assert proof["budget_bits"] == 5 * stages.measured["parameters"]
    assert proof["used_bits"] <= proof["budget_bits"]
    assert proof["lower_bound"] <= proof["predicted_damage"]


def test_pack_and_inspect_agree_on_the_bytes(stages: Any, command: Any) -> None:
    seen = command("inspect", stages.packed, "--json").values
    assert seen["file_bytes"] == stages.saved["bytes"] == sum(seen["files"].values())
    assert seen["file_bytes"] <= stages.saved["budget_bytes"]
    assert seen["bits_per_parameter"] == seen["file_bytes"] * 8 / stages.measured["parameters"]
    assert sum(seen["weight_shares"].values()) == pytest.approx(1)
    on_disk = {path.name: path.stat().st_size for path in stages.packed.iterdir()}
    assert seen["files"].items() <= on_disk.items()
    # the budget covers everything but the tokenizer
    assert all("token" in name or "chat" in name for name in on_disk.keys() - seen["files"].keys())


def test_eval_uses_only_what_calibration_never_saw(stages: Any, bench: Any, command: Any) -> None:
    told = command(
        "eval", stages.packed, "--reference", bench.model, "--text", bench.text, "--tokens", 1024, "--json", "-q"
    ).values
    assert told["part"] == "held-out"
    assert told["packed"]["tokens"] == told["reference"]["tokens"] == 2 * 511
    assert 0 < told["packed"]["kl"] < 1
    assert told["reference"]["kl"] == pytest.approx(0, abs=1e-6)
    assert told["reference"]["top1"] == 1


def test_eval_of_another_text_uses_all_of_it(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(bench.text.read_text(encoding="utf-8")[::-1][:6000], encoding="utf-8")
    told = command("eval", stages.packed, "--text", other, "--json", "-q").values
    assert told["part"] == "all"
    assert told["packed"]["kl"] is None


def test_generate_is_the_same_each_time(stages: Any, command: Any) -> None:
    told = [command("generate", stages.packed, "Python is", "--tokens", 5, "--json").values for _ in range(2)]
    assert told[0] == told[1]
    assert isinstance(told[0]["text"], str)
    sampled = [
        command("generate", stages.packed, "Python is", "--tokens", 8, "--sample", "--seed", seed).out
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_solving_again_measures_nothing(stages: Any, command: Any, tmp_path: Path) -> None:
    for solver in ("uniform", "quantile", "greedy", "lagrangian"):
        out = tmp_path / f"{solver}.json"
        told = command("solve", stages.game, "--size", "120KB", "--solver", solver, "-o", out, "--json").values
        assert told["certificate"]["used_bits"] <= 120_000 * 8
        assert json.loads(out.read_text(encoding="utf-8"))["solver"] == solver


def test_the_certificate_holds(stages: Any, command: Any) -> None:
    told = command("certify", stages.game, stages.allocation, "--json").values
    assert told["holds"]
    assert told["certificate"] == stages.solved["certificate"]


def test_rules_hold(stages: Any, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    rules = ["--keep", "lm_head=8", "--forbid", "mlp.down_proj=2,3", "--fuse", "gate_proj,up_proj"]
    command("solve", stages.game, "--bits", 6, *rules, "-o", out)
    assert command("certify", stages.game, out).code == 0
    allocation = load_allocation(out)
    widths = {tensor.name: allocation.widths(tensor) for tensor in allocation.tensors}
    assert set(widths["model.embed_tokens"].ravel().tolist()) == {8}
    assert widths["model.layers.0.mlp.down_proj"].min() > 3
    assert (widths["model.layers.1.mlp.gate_proj"] == widths["model.layers.1.mlp.up_proj"]).all()


def test_a_coupled_game_is_played_packed_and_certified(bench: Any, command: Any, tmp_path: Path) -> None:
    game, allocation = tmp_path / "game.npz", tmp_path / "allocation.json"
    command("measure", bench.model, "-o", game, "--text", bench.text, "--windows", 6, "--coupling", "--json", "-q")
    assert ns.load_game(game).coupling is not None
    command("solve", game, "--bits", 5, "--solver", "nash-swarm", "-o", allocation, "--json")
    assert command("certify", game, allocation, "--json").values["holds"]
    command("pack", bench.model, allocation, "-o", tmp_path / "packed", "--json", "-q")


def test_compress_is_all_of_them(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = command(
        "compress", bench.model, "--bits", 5, "-o", out, "--text", bench.text, "--windows", 2, "--json", "-q"
    ).values
    assert told["bits_per_parameter"] <= 5
    assert told["packed"]["kl"] < 1
    assert told["trial_kl"].keys() == {"nash-swarm", "uniform", "quantile"}
    assert told["solver"] == min(told["trial_kl"], key=told["trial_kl"].__getitem__)
    assert command("generate", out, "Python", "--tokens", 1).code == 0


def test_compress_without_a_contest_is_what_the_stages_make(
    stages: Any, bench: Any, command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = command(
        "compress", bench.model, "--bits", 5, "-o", out, "--text", bench.text, "--windows", 2, "--no-contest",
        "--json", "-q",
    ).values  # fmt: skip
    assert told["certificate"] == stages.solved["certificate"]
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (stages.packed / weights).read_bytes()


@pytest.mark.parametrize(
    ("granularity", "extra"),
    [
        ("layer", ["--quantizer", "rtn", "--damage", "magnitude"]),
        ("tile", ["--damage", "activation", "--strategies", "2,4,8"]),
        ("parameter", ["--damage", "magnitude", "--solver", "quantile", "--scope", "linear"]),
    ],
)
def test_compress_with_other_choices(
    granularity: str, extra: list[str], bench: Any, command: Any, tmp_path: Path
) -> None:
    told = command(
        "compress", bench.model, "--bits", 6, "--granularity", granularity, *extra, "--text", bench.text,
        "--windows", 1, "-o", tmp_path / "out", "--json", "-q",
    ).values  # fmt: skip
    assert told["bits_per_parameter"] <= 6
    widths = {2, 4, 8} if "2,4,8" in extra else {2, 3, 4, 5, 6, 8}
    assert set(map(int, told["weights_by_width"])) == widths


def test_tables_for_people(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    solved = command("solve", stages.game, "--bits", 5, "-o", tmp_path / "a.json")
    assert "unilateral regret" in solved.out
    packed = command("pack", bench.model, tmp_path / "a.json", "-o", tmp_path / "out", "--quantizer", "rtn", "-q")
    assert (packed.code, packed.out) == (0, "")
    seen = command("inspect", stages.packed)
    assert seen.code == 0
    assert "bits per parameter" in seen.out
    assert "down_proj" in seen.out
    listed = command("solvers")
    assert all(name in listed.out for name in ("lagrangian", "gptq", "fisher"))


def test_solvers_lists_every_room(command: Any) -> None:
    told = command("solvers", "--json").values
    assert {"uniform", "quantile", "greedy", "lagrangian", "nash"} <= told["solvers"].keys()
    assert {"rtn", "gptq"} <= told["quantizers"].keys()
    assert {"magnitude", "activation", "fisher"} <= told["damage"].keys()
    assert all(summary for room in told.values() for summary in room.values())


def test_demo(bench: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nash_swarm.models import source

    loaded = source.load_source(str(bench.model))
    monkeypatch.setattr(source, "load_source", lambda name: loaded)
    out = tmp_path / "demo"
    told = command("demo", "-o", out, "--bits", 5, "--windows", 1, "--tune", 2, "--json", "-q").values
    assert told["models"].keys() == {"original", "nash-swarm, tuned", "nash-swarm", "quantile", "uniform"}
    assert 4.9 < told["models"]["nash-swarm, tuned"]["bits_per_parameter"] <= 5
    assert all(told["models"][name]["bits_per_parameter"] <= 5 for name in ("nash-swarm", "quantile", "uniform"))
    assert told["models"]["original"]["kl"] == pytest.approx(0, abs=1e-6)
    assert isinstance(told["generated"], str)
    again = command("demo", "-o", out, "--bits", 5, "--windows", 1, "--tune", 0, "-q")
    assert again.code == 0, "the demo replaces its own earlier result"
    assert "perplexity" in again.out


def test_inspect_shows_where_the_bits_are(stages: Any, command: Any, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    told = command("inspect", stages.packed, "--html", page)
    assert told.code == 0, told.err
    assert "layer" in told.out and "up_proj" in told.out and "embed_tokens" in told.out
    assert page.read_text().startswith("<!doctype html>") and "mlp.up_proj" in page.read_text()
    assert command("inspect", stages.packed, "--html", tmp_path).code == 2
    values = command("inspect", stages.packed, "--json").values
    for tensor, shares in values["tensor_shares"].items():
        assert abs(sum(shares.values()) - 1) < 1e-9 and values["tensor_weights"][tensor] > 0
