"""Benchmarks on a model: rows and settings in their JSON, and runs that go on where an earlier one stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.benchmarks import run

import nash_swarm as ns


def _values(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def test_the_ablation_keeps_its_rows_and_knows_its_damage(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    words = (
        bench.model, "--bits", 4.5, "--text", bench.text, "--eval-text", bench.text, "--windows", 2,
        "--eval-windows", 2, "--coupling", "off", "--json", path,
    )  # fmt: skip
    run("ablation", *words, "--solvers", "uniform", "--labels", "text")
    first = _values(path)
    assert first["damage"]["labels"] == "text"
    assert {row["solver"] for row in first["rows"]} == {"uniform"}
    run("ablation", *words, "--solvers", "uniform,lagrangian", "--labels", "text")
    both = _values(path)
    assert both["rows"][: len(first["rows"])] == first["rows"]
    assert both["rows"][-1]["solver"] == "lagrangian" and both["rows"][-1]["bits"] <= 4.5
    with pytest.raises(SystemExit, match="name another file"):
        run("ablation", *words, "--solvers", "uniform")
    assert _values(path) == both
    exact = tmp_path / "fp32.json"
    words = (*words[:-1], exact, "--solvers", "lagrangian", "--labels", "text", "--activations", "fp32")
    run("ablation", *words)
    of_fp32, of_int8 = _values(exact)["rows"][-1], both["rows"][-1]
    assert of_fp32["trial_kl"] == of_int8["trial_kl"] and of_fp32["kl"] != of_int8["kl"]


def test_quality_measures_with_the_damage_it_is_told(bench: Bench, tmp_path: Path) -> None:
    words = (
        bench.model, "--bits", 4.5, "--text", bench.text, "--eval-text", bench.text, "--step", "bargain", "descent",
        "--game-windows", 2, "--windows", 2, "--tuning-windows", 2, "--eval-windows", 2,
    )  # fmt: skip
    found = {}
    for labels in ("model", "text"):
        path = tmp_path / f"{labels}.json"
        whole = [] if labels == "text" else ["--no-whole-windows"]
        run("quality", *words, "--labels", labels, *whole, "--damping", 0.1, "--json", path)
        found[labels] = _values(path)
        assert found[labels]["damage"] == {"damping": 0.1, "labels": labels, "whole_windows": labels == "text"}
        assert found[labels]["rows"][0]["used bits"] <= 4.5
    assert found["model"]["rows"][0]["kl"] != found["text"]["rows"][0]["kl"]
    assert found["model"]["reference_loss"] == found["text"]["reference_loss"]
    assert [row["step"] for row in found["model"]["rows"]] == ["bargain", "descent"]


def test_what_coupling_predicts_says_of_which_damage(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "coupling.json"
    run(
        "coupling", bench.model, "--text", bench.text, "--windows", 4, "--eval-windows", 2, "--allocations", 3,
        "--low", 3, "--high", 8, "--target", "kl", "--labels", "text", "--json", path,
    )  # fmt: skip
    values = _values(path)
    assert values["damage"]["labels"] == "text"
    assert len(values["allocations"]) == 3
    assert all(3 <= row["bits"] <= 8 for row in values["allocations"])
    assert set(values["table"]["coupled"]) == {"spearman", "slope", "residual", "ratio"}


def test_batch_mates_are_compared_in_every_way(bench: Bench, tmp_path: Path) -> None:
    packed, path = tmp_path / "packed", tmp_path / "mates.json"
    ns.compress(
        str(bench.model), bits=5.0, text=str(bench.text), damage="magnitude", quantizer="rtn", contest=False,
        eval_windows=0, out=packed, quiet=True,
    )  # fmt: skip
    words = ("--text", bench.text, "--sequences", 2, "--tokens", 16, "--new", 2, "--batch", 3)
    run("batch_mates", packed, *words, "--json", path)
    values = _values(path)
    assert (values["tokens"], values["batch"], values["text"]) == (16, 3, bench.text.name)
    rows = {(row["activations"], row["code"], row["way"]): row for row in values["rows"]}
    ways = {way for *_, way in rows if "against" not in way}
    assert len(ways) == 5 and len(rows) == 3 * 2 * len(ways) + 2
    for code in ("nash-swarm", "transformers"):
        assert rows["int8", code, "batch, equal lengths"]["largest"] == 0
        assert rows["fp32", code, "batch, padded on the left"]["kl"] < 1e-9
    assert (
        rows["int8", "nash-swarm", "int8 against fp32"]["kl"] > rows["int16", "nash-swarm", "int16 against fp32"]["kl"]
    )


@pytest.mark.slow
def test_a_model_is_written_compressed_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    run(
        "large_model", tmp_path / "work", "--hidden", 256, "--intermediate", 688, "--layers", 2,
        "--vocabulary", 1000, "--max-memory", "1.1GB", "--json", path,
    )  # fmt: skip
    values = _values(path)
    parameters = 2 * (4 * 256 * 256 + 3 * 256 * 688 + 2 * 256) + 2 * 1000 * 256 + 256
    assert values["weight_bytes"] == 2 * parameters
    assert 8 * values["compress"]["file_bytes"] <= 3.5 * parameters
    assert values["reload"]["logits_finite"]
    for stage in ("compress", "reload"):
        assert {"seconds", "processor_seconds", "peak_bytes"} <= values[stage].keys()
