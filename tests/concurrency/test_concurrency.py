"""A packed model in many threads and processes at once: right answers, and an end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from support.architectures import ARCHITECTURES

import nash_swarm as ns

_SCENARIOS = Path(__file__).with_name("scenarios.py")
_SECONDS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Packed models by architecture, with heads large enough to be shared out over threads."""

    @cache
    def packed(name: str) -> Path:
        model = ARCHITECTURES[name].make(vocab_size=32_001)
        game = ns.measure(model, damage="magnitude", text=None, granularity="layer", quiet=True)
        made = ns.pack(model, ns.solve(game, bits=4.0), quantizer="rtn", quiet=True)
        return ns.save(made, tmp_path_factory.mktemp("concurrency") / "packed")

    return packed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("threads", "llama"),
        *(pytest.param("threads", other, marks=pytest.mark.slow) for other in ("gpt2", "mixtral", "t5")),
        *(pytest.param(name, "llama", marks=pytest.mark.slow) for name in ("joblib_threads", "joblib_processes")),
        pytest.param("data_loader", "llama", marks=pytest.mark.slow),
        ("fork", "llama"),
    ],
)
def test_nobody_waits_for_ever_and_all_answers_are_those_of_one_thread(
    name: str, architecture: str, folder: Callable[[str], Path]
) -> None:
    # in a process of its own: a hang is a failure there, and not one of the whole suite
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_SCENARIOS), name, str(folder(architecture))],
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
