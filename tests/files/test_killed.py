"""Runs killed at random moments, and runs that are interrupted: what is left is whole, and what was done is used."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.bench import Bench

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.slow
def test_killed_runs_leave_nothing_half_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "killing.py"), str(tmp_path), "0", "25", "30", "15"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT.parent)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["compress"]["kills"] + found["save"]["kills"] >= 50
    assert found["compress"]["resumed"] > 0 and found["measure"]["resumed"] > 0


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_and_exits_with_130(bench: Bench, tmp_path: Path) -> None:
    rng = random.Random(0)
    command = [
        sys.executable, "-m", "nash_swarm", "compress", str(bench.model), "--bits", "6", "--text", str(bench.text),
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    for _ in range(3):
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # whoever runs the tests in the background has interrupts ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stderr is not None
            # its first bar: the work has begun
            assert process.stderr.read(1)
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGINT)
            message = process.stderr.read().decode()
        assert process.returncode == 130, message
        assert "interrupted" in message
        # but for the measured game or its finished matrices, which are whole and serve the next run
        assert all(path.suffix in (".npz", ".parts") and path.name.startswith(".out.") for path in tmp_path.iterdir())
