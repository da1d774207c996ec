"""Starts runs of this project in forked processes, kills them at random moments, and looks at what is left.

Prints a JSON object of counts; any broken promise is an assertion that fails. Run by `tests/files/test_killed.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.models.source import load_source
from support.bench import make_bench
from support.models import allocate, tiny_llama

Digest = dict[str, str]


def digest(folder: Path) -> Digest:
    return {path.name: hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(run: Callable[[], object]) -> int:
    """A forked process that does `run` and exits; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run()
        code = 0
    finally:
        os._exit(code)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def timed(run: Callable[[], object]) -> float:
    before = time.monotonic()
    assert finish(start(run)) == 0
    return time.monotonic() - before


def killed(run: Callable[[], object], delay: float) -> bool:
    """Whether `run` was still busy when it was killed after `delay` seconds."""
    child = start(run)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return finish(child) == -signal.SIGKILL


def kill_compress(folder: Path, times: int, rng: random.Random) -> dict[str, int]:
    """Whatever moment `compress` is killed at, the output is not there or is whole, and the game is measured once."""
    bench = make_bench(folder)
    (folder / "short.txt").write_text(bench.text.read_text()[:2000])
    work = folder / "work"
    work.mkdir()
    source = load_source(str(bench.model))
    out, measurings = work / "out", folder / "measurings"

    def run(target: Path = out) -> None:
        import nash_swarm.pipeline.job as stage

        plain = stage.measure

        def counted(*args: object, **kwargs: object) -> object:
            game = plain(*args, **kwargs)
            with measurings.open("ab") as file:
                file.write(b"x")
            return game

        stage.measure = counted
        ns.compress(
            source, bits=6, text=str(folder / "short.txt"), windows=2, eval_windows=1, out=target, overwrite=True,
            quiet=True,
        )  # fmt: skip

    (folder / "calm").mkdir()
    timed(lambda: run(folder / "calm" / "out"))  # what is compiled once
    length = timed(lambda: run(folder / "calm" / "out"))
    expected = digest(folder / "calm" / "out")
    measurings.write_bytes(b"")
    hits = finished = resumed = 0
    while hits < times:
        kept = any(path.suffix == ".npz" for path in work.iterdir())
        before = measurings.stat().st_size
        if killed(run, rng.uniform(0, 1.1 * length)):
            hits += 1
        else:
            finished += 1
        if kept:
            assert measurings.stat().st_size == before, "measured again"
            resumed += 1
        if out.exists():
            assert digest(out) == expected
            ns.load(out)
            if rng.random() < 0.5:
                for path in out.iterdir():
                    path.unlink()
                out.rmdir()
        for path in work.iterdir():
            # the last is a game that was being written
            assert path == out or path.name.startswith((".out.", "..out.")), path
            if path.suffix == ".npz":
                ns.load_game(path)
    assert finish(start(run)) == 0
    assert [path.name for path in work.iterdir()] == ["out"] and digest(out) == expected
    return {"kills": hits, "finished": finished, "resumed": resumed}


def kill_measure(folder: Path, times: int, rng: random.Random) -> dict[str, int]:
    """Whatever moment a measuring is killed at, its file is not there or is whole, and what it finished is not lost."""
    from nash_swarm.pipeline import measuring
    from nash_swarm.pipeline.recovery import kept_pieces

    (folder / "measure").mkdir()
    bench = make_bench(folder / "measure")
    source = load_source(str(bench.model))
    work = folder / "measurings of matrices"
    work.mkdir()
    out, counted_in = work / "game.npz", folder / "matrices"

    def run(target: Path = out) -> None:
        plain = measuring._measured

        def counted(*args: object) -> object:
            piece = plain(*args)  # type: ignore[arg-type]
            with counted_in.open("ab") as file:
                file.write(b"x")
            return piece

        measuring._measured = counted  # type: ignore[assignment]
        with kept_pieces(target) as pieces:
            game = ns.measure(
                source.model, source.tokenizer, text=str(bench.text), windows=4, pieces=pieces, quiet=True
            )
            ns.save_game(game, target, overwrite=True)

    (folder / "calm measuring").mkdir()
    calm = folder / "calm measuring" / "game.npz"
    timed(lambda: run(calm))  # what is compiled once
    length = timed(lambda: run(calm))
    counted_in.write_bytes(b"")
    assert finish(start(lambda: run(calm))) == 0
    matrices = counted_in.stat().st_size
    counted_in.write_bytes(b"")
    hits = finished = resumed = 0
    while hits < times:
        before = len(list(work.glob(".game.npz.*.parts/*.npz")))
        measured = counted_in.stat().st_size
        if killed(run, rng.uniform(0, 1.1 * length)):
            hits += 1
        else:
            finished += 1
            assert counted_in.stat().st_size - measured == matrices - before, "measured again"
        resumed += bool(before)
        if out.exists():
            assert out.read_bytes() == calm.read_bytes()
            out.unlink()
        for path in work.iterdir():
            assert path.name.startswith((".game.npz.", "..game.npz.")), path
    assert finish(start(run)) == 0
    assert [path.name for path in work.iterdir()] == ["game.npz"] and out.read_bytes() == calm.read_bytes()
    return {"kills": hits, "finished": finished, "resumed": resumed}


def kill_save(folder: Path, times: int, rng: random.Random) -> dict[str, int]:
    """Whatever moment a model is replaced at, one of the two is there, or the next run puts the old one back."""
    work = folder / "saves"
    work.mkdir()
    out = work / "out"
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    packings = [ns.pack(model, allocate(game, share), quantizer="rtn", quiet=True) for share in (0.3, 0.7)]
    versions = []
    for packed in packings:
        ns.save(packed, out, overwrite=True)
        versions.append(digest(out))

    def run() -> None:
        while True:
            for packed in packings:
                ns.save(packed, out, overwrite=True)

    absent = 0
    for _ in range(times):
        assert killed(run, rng.uniform(0, 0.3))
        if not out.exists():
            absent += 1
            try:
                ns.load(out)
            except DataError:
                pass
            else:
                raise AssertionError("loaded from nowhere")
            from nash_swarm.files.atomic import clean_up

            clean_up(out)
        assert digest(out) in versions
        ns.load(out)
    ns.save(packings[0], out, overwrite=True)
    assert [path.name for path in work.iterdir()] == ["out"]
    return {"kills": times, "absent": absent}


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    place, seed, compressions, saves, measurings = Path(sys.argv[1]), *map(int, sys.argv[2:6])
    chance = random.Random(seed)
    print(
        json.dumps(
            {
                "compress": kill_compress(place, compressions, chance),
                "save": kill_save(place, saves, chance),
                "measure": kill_measure(place, measurings, chance),
            }
        )
    )
