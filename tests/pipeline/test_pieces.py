"""A measuring that was killed: the matrices it had finished are not measured again, and the game is the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.architectures import ARCHITECTURES
from support.bench import Bench
from support.models import tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import CalibrationWarning, DataError, OutputError
from nash_swarm.game import BitGame
from nash_swarm.models.source import load_source
from nash_swarm.pipeline import measuring
from nash_swarm.pipeline.pieces import Finished, Pieces
from nash_swarm.pipeline.recovery import kept_game, kept_pieces

Tokens = npt.NDArray[np.int32]


class Stopwatch:
    """Counts the matrices that are measured, and interrupts after some of them are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured: list[str] = []
        self.last: int | None = None
        measure, keep = measuring._measured, Finished.keep

        def counted(weight: Any, statistics: Any, estimator: Any, layout: Any, *more: Any) -> Any:
            self.measured.append(layout.name)
            return measure(weight, statistics, estimator, layout, *more)

        def stopping(finished: Finished, name: str, piece: Any, losses: Any, number: int) -> None:
            keep(finished, name, piece, losses, number)
            if number == self.last:
                raise KeyboardInterrupt

        monkeypatch.setattr(measuring, "_measured", counted)
        monkeypatch.setattr(Finished, "keep", stopping)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    return Stopwatch(monkeypatch)


def saved(game: BitGame, path: Path) -> bytes:
    return ns.save_game(game, path, overwrite=True).read_bytes()


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "backward": (lambda: tiny_llama(tied=False), {}),
    "tied": (lambda: tiny_llama(tied=True), {}),
    "positions": (tiny_gpt2, {}),
    "forward": (lambda: tiny_llama(tied=True), {"damage": "activation"}),
    "weights": (lambda: tiny_llama(tied=False), {"damage": "magnitude"}),
    "parameter": (lambda: tiny_llama(tied=True), {"granularity": "parameter"}),
    "whole": (lambda: ARCHITECTURES["t5"].make(), {}),
}


@pytest.mark.parametrize("last", [1, 5, -1])
@pytest.mark.parametrize("case", CASES)
def test_the_rest_is_measured_and_the_game_is_the_same(
    case: str, last: int, tokens: Tokens, watch: Stopwatch, tmp_path: Path
) -> None:
    make, settings = CASES[case]
    model, out = make(), tmp_path / "game.npz"
    settings = {"group_size": 32, "quiet": True, "tokens": tokens} | settings
    expected = saved(ns.measure(model, **settings), tmp_path / "calm.npz")
    matrices = watch.measured.copy()
    watch.measured.clear()
    watch.last = last if last > 0 else len(matrices)
    with pytest.raises(KeyboardInterrupt), kept_pieces(out) as pieces:
        ns.measure(model, pieces=pieces, **settings)
    assert [path.suffix for path in tmp_path.iterdir() if path.name.startswith(".")] == [".parts"]
    watch.measured.clear()
    watch.last = None
    with kept_pieces(out) as pieces:
        game = ns.measure(model, pieces=pieces, **settings)
        assert saved(game, out) == expected
    assert watch.measured == matrices[last if last > 0 else len(matrices) :]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm.npz", "game.npz"]


def test_a_model_on_disk_goes_on_as_well(tokens: Tokens, watch: Stopwatch, tmp_path: Path) -> None:
    import transformers

    from nash_swarm.models.offload import offloaded

    folder, scratch = tmp_path / "model", tmp_path / "scratch"
    tiny_llama(tied=True).save_pretrained(folder)
    scratch.mkdir()
    model = offloaded(folder, transformers.AutoConfig.from_pretrained(folder), scratch)
    settings: dict[str, Any] = {"group_size": 32, "quiet": True, "tokens": tokens}
    expected = saved(ns.measure(model, **settings), tmp_path / "calm.npz")
    every = watch.measured.copy()
    watch.measured.clear()
    watch.last = 6
    for last in (6, None):
        watch.last = last
        try:
            game = ns.measure(model, pieces=Pieces(tmp_path / "out"), **settings)
        except KeyboardInterrupt:
            assert last == 6
    assert watch.measured == every and saved(game, tmp_path / "again.npz") == expected


def test_when_nothing_is_left_the_model_does_not_run(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pieces = tiny_llama(tied=True), Pieces(tmp_path / "out")
    first = ns.measure(model, tokens=tokens, group_size=32, pieces=pieces, quiet=True)
    monkeypatch.setattr(measuring, "gather", lambda *_, **__: pytest.fail("walked again"))
    again = ns.measure(model, tokens=tokens, group_size=32, pieces=pieces, quiet=True)
    assert saved(again, tmp_path / "a") == saved(first, tmp_path / "b")
    assert "calibration_loss" in again.provenance


@pytest.mark.parametrize("change", ["tokens", "weights", "estimator", "strategies", "group size"])
def test_pieces_of_another_measuring_are_not_taken(
    change: str, tokens: Tokens, watch: Stopwatch, tmp_path: Path
) -> None:
    model, pieces = tiny_llama(tied=True), Pieces(tmp_path / "out")
    settings: dict[str, Any] = {"tokens": tokens, "group_size": 32, "granularity": "parameter", "quiet": True}
    ns.measure(model, pieces=pieces, **settings)
    everything = len(watch.measured)
    watch.measured.clear()
    if change == "weights":
        model.model.layers[1].mlp.up_proj.weight.data[3, 4] += 0.01
    settings |= {
        "tokens": {"tokens": tokens[:5]}, "weights": {}, "estimator": {"damage": "activation"},
        "strategies": {"strategies": (2, 4, 8)}, "group size": {"group_size": 64},
    }[change]  # fmt: skip
    ns.measure(model, pieces=pieces, **settings)
    assert len(watch.measured) == everything


def test_damaged_pieces_are_measured_again(tokens: Tokens, watch: Stopwatch, tmp_path: Path) -> None:
    model, pieces = tiny_llama(tied=True), Pieces(tmp_path / "out")
    settings: dict[str, Any] = {"tokens": tokens, "group_size": 32, "pieces": pieces, "quiet": True}
    expected = saved(ns.measure(model, **settings), tmp_path / "calm.npz")
    (folder,) = tmp_path.glob(".out.*.parts")
    files = sorted(folder.glob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    shutil.copy(files[3], files[2])  # one matrix twice, another not at all
    (folder / "notes.txt").write_text("mine")
    swapped = files[4].read_bytes()
    files[4].write_bytes(swapped.replace(b"facts.npy", b"fakts.npy"))
    watch.measured.clear()
    game = ns.measure(model, **settings)
    assert len(watch.measured) == 4
    same = ns.load_game(tmp_path / "calm.npz")
    np.testing.assert_array_equal(game.damage, same.damage)
    assert {name: order.tolist() for name, order in game.permutations.items()} == {
        name: order.tolist() for name, order in same.permutations.items()
    }
    assert len(saved(game, tmp_path / "again.npz")) == len(expected)
    # what was measured again went beside the good pieces, not over them
    watch.measured.clear()
    ns.measure(model, **settings)
    assert not watch.measured
    with kept_pieces(tmp_path / "out"):
        pass
    # not even from such a folder is anything else removed
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_what_the_text_did_not_reach_is_remembered_as_such(tmp_path: Path, watch: Stopwatch, tokens: Tokens) -> None:
    import torch

    model = ARCHITECTURES["mixtral"].make(num_local_experts=5)
    for layer in model.model.layers:
        router = layer.mlp.gate.weight.data
        router[:] = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])[:, None] * router[0]
    settings: dict[str, Any] = {"tokens": tokens % 90, "group_size": 32, "quiet": True}
    with pytest.warns(CalibrationWarning):
        expected = saved(ns.measure(model, **settings), tmp_path / "calm.npz")
    pieces = Pieces(tmp_path / "out")
    with pytest.warns(CalibrationWarning):
        ns.measure(model, pieces=pieces, **settings)
    watch.measured.clear()
    with pytest.warns(CalibrationWarning):
        game = ns.measure(model, pieces=pieces, **settings)
    assert not watch.measured
    again = ns.load_game(tmp_path / "calm.npz")
    np.testing.assert_array_equal(game.damage, again.damage)
    assert saved(game, tmp_path / "again.npz") == expected


def test_large_tables_are_not_kept(tokens: Tokens, tmp_path: Path) -> None:
    ns.measure(tiny_llama(tied=True), tokens=tokens, group_size=32, pieces=Pieces(tmp_path / "out", 100), quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_no_pieces_does_not_stop_a_measuring(tokens: Tokens, tmp_path: Path) -> None:
    (folder,) = [Pieces(tmp_path / "out").of([], 1)]
    assert folder is not None
    pieces = Pieces(tmp_path / "out")
    plain = ns.measure(tiny_llama(tied=True), tokens=tokens, group_size=32, quiet=True)
    from unittest import mock

    with mock.patch("numpy.savez", side_effect=OSError(28, "No space left on device")):
        game = ns.measure(tiny_llama(tied=True), tokens=tokens, group_size=32, pieces=pieces, quiet=True)
    np.testing.assert_array_equal(game.damage, plain.damage)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_measuring_survives_an_output_that_cannot_be_written(
    tokens: Tokens, watch: Stopwatch, tmp_path: Path
) -> None:
    """Whether the disk is full or somebody else wrote a file of that name in the meantime."""
    model, out = tiny_llama(tied=True), tmp_path / "out"
    settings: dict[str, Any] = {"tokens": tokens, "group_size": 32, "quiet": True}
    for error in (DataError("the disk is full"), OutputError("it exists")):
        with pytest.raises(type(error)), kept_pieces(out) as pieces:
            ns.measure(model, pieces=pieces, **settings)
            raise error
    assert len(watch.measured) == len(set(watch.measured))

    def measured(pieces: Pieces) -> BitGame:
        return ns.measure(model, pieces=pieces, **settings)

    for _ in range(2):
        with pytest.raises(OutputError), kept_game(out, {}, model, 10**9, measured):
            # the game is whole: the pieces are gone
            assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
            raise OutputError("in the way")
    assert len(watch.measured) == len(set(watch.measured))


def test_compress_takes_up_what_another_compress_measured(bench: Bench, watch: Stopwatch, tmp_path: Path) -> None:
    source = load_source(str(bench.model))
    settings: dict[str, Any] = {
        "text": str(bench.text), "windows": 2, "eval_windows": 0, "contest": False, "quiet": True
    }  # fmt: skip
    ns.compress(source, bits=6, out=tmp_path / "calm", **settings)
    every = watch.measured.copy()
    watch.measured.clear()
    watch.last = 6
    with pytest.raises(KeyboardInterrupt):
        ns.compress(source, bits=6, out=tmp_path / "out", **settings)
    watch.last = None
    ns.compress(source, bits=6, out=tmp_path / "out", **settings)
    assert watch.measured == every
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "calm" / "model.safetensors"
    ).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "out"]


def test_a_killed_measure_goes_on_where_it_was(bench: Bench, tmp_path: Path) -> None:
    """A real process, a real kill."""
    command = [sys.executable, "-m", "nash_swarm", "measure", bench.model, "--text", bench.text, "--windows", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "-q", "-o", tmp_path / "calm.npz"], check=True, env=environment, stdout=subprocess.PIPE)
    out = tmp_path / "game.npz"
    process = subprocess.Popen([*command, "-q", "-o", out], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(tmp_path.glob(".game.npz.*.parts/*.npz"))) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick"
    kept = list(tmp_path.glob(".game.npz.*.parts/*.npz"))
    assert len(kept) >= 2 and not out.exists()
    # a mistyped command in between takes nothing away
    for wrong in (["--group-size", "7"], ["--damage", "nobody"]):
        failed = subprocess.run([*command, "-q", "-o", out, *wrong], env=environment, capture_output=True)
        assert failed.returncode == 2
    done = subprocess.run([*command, "-o", out], check=True, env=environment, capture_output=True, text=True)
    assert out.read_bytes() == (tmp_path / "calm.npz").read_bytes()
    assert f"({len(kept)} of 15 matrices) from an earlier run" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm.npz", "game.npz"]
