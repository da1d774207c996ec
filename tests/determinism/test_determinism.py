"""Same seed, same bytes: every file, from run to run and whatever the number of threads."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.bench import Bench

from nash_swarm.models.source import BUILT_IN

_COMPRESS = """
import hashlib, json, sys
from pathlib import Path
import torch
threads, model, out, settings = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(threads)
import nash_swarm as ns
from nash_swarm.recipe import Recipe, Tuning
if (tuning := settings.pop("tuning", None)) is not None:
    settings |= {"windows": 4, "baselines": False, "recipe": Recipe(tuning=Tuning(**tuning, windows=6))}
made = ns.compress(model, out=out, quiet=True, **settings)
print(json.dumps({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.iterdir())}))
"""


def digests(folder: Path, threads: int, model: str, **settings: object) -> dict[str, str]:
    """SHA-256 of every file that `compress` writes in a process with so many threads."""
    folder.mkdir()
    # the folder's name stands in the model card: it is the same each time
    done = subprocess.run(
        [sys.executable, "-c", _COMPRESS, str(threads), model, str(folder / "packed"), json.dumps(settings)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert {"model.safetensors", "config.json", "nash_swarm.json", "README.md"} <= set(found)
    return found


def test_bytes_do_not_depend_on_the_run_or_the_threads(bench: Bench, tmp_path: Path) -> None:
    settings = {"bits": 4.5, "text": str(bench.text), "windows": 4, "eval_windows": 2}
    first = digests(tmp_path / "1", 1, str(bench.model), **settings)
    assert digests(tmp_path / "2", 2, str(bench.model), **settings) == first


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_bytes_of_a_tuned_model_do_not_depend_on_the_run_or_the_threads(
    bench: Bench, tmp_path: Path, precision: str
) -> None:
    settings = {"bits": 4.5, "text": str(bench.text), "eval_windows": 2, "granularity": "tile"}
    settings["tuning"] = {"steps": 8, "batch": 2, "check": 2, "scales": 0.5, "precision": precision}
    first = digests(tmp_path / "1", 1, str(bench.model), **settings)
    assert digests(tmp_path / "2", 2, str(bench.model), **settings) == first


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(BUILT_IN["smollm2"][0]) is None, reason="the demo model is not installed")
def test_bytes_of_the_demo_model_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    settings = {"bits": 3.5, "windows": 2, "eval_windows": 1, "contest": False}
    first = digests(tmp_path / "1", 1, "smollm2", **settings)
    assert digests(tmp_path / "2", 2, "smollm2", **settings) == first
