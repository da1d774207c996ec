"""Containers, stores of package managers, other users' installations: nothing there but a volume can be written."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.models import tiny_gpt2
from support.read_only import Sealed, lines

import nash_swarm as ns

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions as Unix has them")
WRITE = "from pathlib import Path; [Path(place, 'x').touch() for place in {places!r}]"
KEPT = "cannot be written: compiled code is kept in"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    """The package where nothing can be written, and nothing has been compiled."""
    made = Sealed.below(tmp_path_factory.mktemp("sealed"))
    made.seal()
    for place in (made.package / "nash_swarm", made.home, made.work):
        if made.run("-c", WRITE.format(places=[str(place)])).returncode == 0:
            pytest.skip("this user's processes may write whatever permissions say")
    yield made
    made.seal(open_again=True)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results go; a game is there."""
    place = tmp_path_factory.mktemp("volume")
    tokens = [[(7 * i + 3 * j) % 101 for j in range(32)] for i in range(6)]
    import numpy as np

    ns.save_game(ns.measure(tiny_gpt2(), tokens=np.array(tokens, np.int32), quiet=True), place / "game.npz")
    return place


def nash_swarm(sealed: Sealed, *arguments: str, **variables: str) -> tuple[str, list[str]]:
    """What a command that succeeds says on standard output, and what on standard error."""
    before = sealed.written()
    done = sealed.run("-m", "nash_swarm", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert sealed.written() == before
    return done.stdout, [line for line in lines(done.stderr) if line.startswith("nash-swarm:")]


def test_games_are_solved_and_certified(sealed: Sealed, volume: Path) -> None:
    game, out = str(volume / "game.npz"), str(volume / "allocation.json")
    told, said = nash_swarm(sealed, "solvers", "--json")
    assert "lagrangian" in json.loads(told)["solvers"] and not said  # nothing is compiled yet
    _, said = nash_swarm(sealed, "solve", game, "--bits", "7", "--solver", "lagrangian", "-o", out)
    private = sealed.temporary / f"nash-swarm-{os.getuid()}"
    assert len(said) == 1 and f"{KEPT} {private}" in said[0] and "NUMBA_CACHE_DIR" in said[0]
    assert stat.S_IMODE(private.stat().st_mode) == 0o700 and any(private.rglob("*.nbc"))
    for _ in range(2):
        told, said = nash_swarm(sealed, "certify", game, out, "--json")
        assert json.loads(told)["holds"]
    assert not said  # all was there


def test_a_chosen_folder_is_written_and_one_that_cannot_be_is_named(sealed: Sealed, volume: Path) -> None:
    arguments = ("solve", str(volume / "game.npz"), "--bits", "7", "--solver", "uniform", "-o")
    chosen = volume / "compiled"
    _, said = nash_swarm(sealed, *arguments, str(volume / "1.json"), NUMBA_CACHE_DIR=str(chosen))
    assert not said and any(chosen.rglob("*.nbc"))
    for folder, _, _ in os.walk(chosen):
        os.chmod(folder, 0o555)  # noqa: PTH101
    # what is there serves although nothing can be added
    _, said = nash_swarm(sealed, *arguments, str(volume / "2.json"), NUMBA_CACHE_DIR=str(chosen))
    assert not said
    closed = sealed.home / "compiled"
    (elsewhere := volume / "elsewhere").mkdir()
    _, said = nash_swarm(sealed, *arguments, str(volume / "3.json"), NUMBA_CACHE_DIR=str(closed), TMPDIR=str(elsewhere))
    assert len(said) == 1 and said[0].startswith(f"nash-swarm: NUMBA_CACHE_DIR ({closed}) and ") and KEPT in said[0]


def test_nothing_at_all_can_be_written(sealed: Sealed, volume: Path) -> None:
    if sealed.frozen("-c", WRITE.format(places=[])).returncode:
        pytest.skip("making file systems read-only takes root and mount namespaces")
    for place in (sealed.temporary, "/dev/shm"):
        assert sealed.frozen("-c", WRITE.format(places=[str(place)])).returncode, place
    game = str(volume / "game.npz")
    ns.save_allocation(ns.solve(ns.load_game(game), bits=7, solver="uniform"), volume / "frozen.json")
    done = sealed.frozen("-m", "nash_swarm", "certify", game, str(volume / "frozen.json"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["holds"]
    said = lines(done.stderr)
    assert len(said) == 1 and "every process compiles anew" in said[0]


LOAD = """
import nash_swarm, sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(type(model.model.layers[0].mlp.down_proj).__name__)
"""


LOAD_GGUF = """
import sys
from nash_swarm.models.source import load_source
print(load_source(sys.argv[1]).model.num_parameters() > 0)
"""


def test_gguf_files_are_read(sealed: Sealed) -> None:
    from support.fuzzing import small_gguf

    small_gguf(sealed.temporary / "small.gguf")
    place = sealed.temporary / "closed"
    place.mkdir()
    (sealed.temporary / "small.gguf").rename(place / "small.gguf")
    place.chmod(0o555)
    done = sealed.run("-c", LOAD_GGUF, str(place / "small.gguf"))
    place.chmod(0o755)
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.slow
def test_models_are_packed_and_run(sealed: Sealed, volume: Path, bench: Bench) -> None:
    source, text, out = str(bench.model), str(bench.text), str(volume / "packed")
    for place in (bench.model, bench.model.parent):
        place.chmod(0o555)
    try:
        options = ("--text", text, "--windows", "2", "--no-contest", "--quiet")
        _, said = nash_swarm(sealed, "compress", source, "--bits", "5", *options, "-o", out)
        assert sum(KEPT in line for line in said) == 1
        for place in (volume / "packed", volume):
            place.chmod(0o555)  # read from where nothing can be written
        told, _ = nash_swarm(sealed, "eval", out, "--reference", source, "--text", text, "--tokens", "64", "--json")
        assert json.loads(told)["packed"]["kl"] >= 0
        told, _ = nash_swarm(sealed, "generate", out, "The", "--tokens", "2")
        assert told.strip()
        nash_swarm(sealed, "inspect", out, "--json")
        loaded = sealed.run("-c", LOAD, out)
        assert loaded.stdout.split() == ["PackedLinear"], loaded.stderr
        told, _ = nash_swarm(sealed, "warmup", "--json")
        assert json.loads(told)["cache"].startswith(str(sealed.temporary))
        told, said = nash_swarm(sealed, "warmup", "--json")
        assert json.loads(told)["compiled"] == [] and not said
    finally:
        for place in (bench.model, bench.model.parent, volume / "packed", volume):
            place.chmod(0o755)
