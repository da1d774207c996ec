"""Games of single weights, and candidates, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nash_swarm as ns


class Rows(NamedTuple):
    """A measured game whose agents are single weights, and what measuring it said."""

    game: Path
    measured: dict[str, Any]


@pytest.fixture(scope="module")
def rows(bench: Any, command: Any, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    game = tmp_path_factory.mktemp("rows") / "game.npz"
    told = command(
        "measure", bench.model, "-o", game, "--text", bench.text, "--windows", 2, "--granularity", "parameter",
        "--strategies", "2,4,8", "--json", "-q",
    )  # fmt: skip
    return Rows(game, told.values)


def _bits(rows: Rows) -> float:
    low, high = (rows.measured[f"{end}_bits_per_parameter"] for end in ("smallest", "largest"))
    return float(low + (high - low) / 3)


def _fails(told: Any, code: int, *words: str) -> None:
    assert told.code == code, told.err
    assert len(told.err.strip().splitlines()) == 1 and told.err.startswith("nash-swarm: ")
    assert all(word in told.err for word in words), told.err


def _changed(game: Path, out: Path, **changes: Any) -> Path:
    """The game file with some arrays replaced."""
    with np.load(game) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(out, **{**arrays, **changes})
    return out


@pytest.mark.parametrize("solver", ["nash", "streaming"])
def test_it_is_played_and_certified(solver: str, rows: Rows, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    told = command("solve", rows.game, "--bits", _bits(rows), "--solver", solver, "-o", out, "--json").values
    proof = told["certificate"]
    assert 0.999 * proof["budget_bits"] <= proof["used_bits"] <= proof["budget_bits"]
    assert proof["lower_bound"] <= proof["predicted_damage"]
    assert command("certify", rows.game, out, "--json").values["holds"]


def test_pins_hold(rows: Rows, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    rules = ["--keep", "lm_head=8", "--forbid", "down_proj=2"]
    bits = rows.measured["largest_bits_per_parameter"] - 0.3
    command("solve", rows.game, "--bits", bits, *rules, "-o", out)
    assert command("certify", rows.game, out).code == 0
    allocation = ns.load_allocation(out)
    widths = {tensor.name: allocation.widths(tensor) for tensor in allocation.tensors}
    assert set(widths["model.embed_tokens"].ravel().tolist()) == {8}
    assert widths["model.layers.0.mlp.down_proj"].min() > 2
    told = command("solve", rows.game, "--bits", _bits(rows), *rules[:2], "--keep", "*=8", "-o", tmp_path / "b.json")
    _fails(told, 2, "smallest feasible", "keep lm_head=8")
    assert not (tmp_path / "b.json").exists()


def test_single_weights_are_not_coupled(command: Any, tmp_path: Path) -> None:
    told = command("measure", "./none", "-o", tmp_path / "g.npz", "--granularity", "parameter", "--coupling")
    _fails(told, 2, "not of single weights")
    assert not list(tmp_path.iterdir())


def test_a_tampered_game_or_certificate_does_not_pass(rows: Rows, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    command("solve", rows.game, "--bits", _bits(rows), "-o", out)
    game = ns.load_game(rows.game)
    damage = np.where(np.arange(game.damage.size).reshape(game.damage.shape) == 5, np.nan, game.damage)
    broken = _changed(rows.game, tmp_path / "broken.npz", damage=damage)
    _fails(command("solve", broken, "--bits", _bits(rows), "-o", tmp_path / "b.json"), 1, "NaN")
    assert not (tmp_path / "b.json").exists()
    values = json.loads(out.read_text(encoding="utf-8"))
    for field in ("unilateral_regret", "lower_bound", "predicted_damage", "exchange_regret"):
        tampered = json.loads(json.dumps(values))
        tampered["certificate"][field] = tampered["certificate"][field] * 2 + 1
        (tmp_path / "t.json").write_text(json.dumps(tampered), encoding="utf-8")
        _fails(command("certify", rows.game, tmp_path / "t.json"), 1, field)


def test_the_real_loss_of_each_candidate_is_kept_and_the_best_wins(bench: Any, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = command(
        "compress", bench.model, "--bits", 5, "-o", out, "--text", bench.text, "--windows", 2,
        "--solver", "nash", "--json", "-q",
    ).values  # fmt: skip
    report = json.loads((out / "nash_swarm.json").read_text(encoding="utf-8"))["measured"]
    names = {"nash", "uniform", "quantile"}
    assert told["trial_kl"].keys() == report["trial_kl"].keys() == report["trial_loss"].keys() == names
    best = min(told["trial_kl"], key=told["trial_kl"].__getitem__)
    assert next(iter(told["trial_kl"])) == best
    assert told["solver"] == best
    assert all(loss > 0 for loss in report["trial_loss"].values())
