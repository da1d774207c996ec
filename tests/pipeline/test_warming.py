"""Compilation: said once, done ahead on request, kept between processes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nash_swarm.pipeline.warming import warm_up
from nash_swarm.quantizers.runtime.cpu import first_use


def compiling(module: str | None) -> Any:
    function = SimpleNamespace(__module__=module, __qualname__="kernel")
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


def test_the_first_compilation_of_ours_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    listener = first_use._Listener()
    listener.on_start(compiling("somebody.else"))
    listener.on_start(compiling(None))
    assert not caplog.records
    for _ in range(3):
        listener.on_start(compiling("nash_swarm.quantizers.runtime.cpu.tiles"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "compiling kernels, once" in caplog.text
    assert listener.compiled == ["nash_swarm.quantizers.runtime.cpu.tiles.kernel"] * 3


def test_nothing_is_left_to_compile_after_warming_up() -> None:
    warm_up()
    again = warm_up()
    assert not again.compiled
    assert Path(again.cache).is_dir()


def run(*command: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=True, timeout=600
    )


USE = "from nash_swarm.pipeline.warming import warm_up; print(len(warm_up().compiled))"


@pytest.mark.slow
def test_compiled_kernels_serve_later_processes(tmp_path: Path) -> None:
    first = run("-m", "nash_swarm", "warmup", "--json", cache=tmp_path)
    told = json.loads(first.stdout)
    assert told["compiled"] and told["cache"].startswith(str(tmp_path))
    assert first.stderr.count("compiling kernels, once") == 1
    second = run("-c", USE, cache=tmp_path)
    assert second.stdout.strip() == "0" and "compiling" not in second.stderr


ONE = """
from nash_swarm.quantizers.runtime.cpu.compiled import kernel
from nash_swarm.quantizers.runtime.cpu.simd import paths
kernel(paths.choose(None), {exact})
"""
BOTH = """
import numpy as np, torch
from support.products import random_tensor
from nash_swarm.quantizers.runtime.cpu.matrix import prepare
from nash_swarm.quantizers.runtime.cpu.product import Product
prepared, tokens = prepare(random_tensor(4, (128, 256))), 3
x = np.random.default_rng(0).normal(size=(tokens, 256)).astype(np.float32)
for runner in [Product(prepared, mode) for mode in ("int8", "fp32")]:
    inputs, work = (np.zeros(size(tokens), np.uint8) for size in (runner.activation_bytes, runner.work_bytes))
    alone, shared = np.zeros((2, tokens, 128), np.float32)
    runner.run(x.ctypes.data, alone.ctypes.data, tokens, inputs.ctypes.data, work.ctypes.data)
    torch.set_num_threads(2)
    runner.share(inputs.ctypes.data, shared.ctypes.data, tokens, 1)
    print(np.array_equal(alone, shared) and bool(alone.any()))
"""


@pytest.mark.slow
def test_kernels_that_two_processes_compiled_are_told_apart(tmp_path: Path) -> None:
    for exact in (False, True):
        run("-c", ONE.format(exact=exact), cache=tmp_path)
    both = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{BOTH}"
    assert run("-c", both, cache=tmp_path).stdout.split() == ["True", "True"]
