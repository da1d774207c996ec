"""The choice of instructions, other CPUs than this one, and the cache on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.products import differences

from nash_swarm.errors import UsageError
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.simd import paths

TESTS = Path(__file__).parents[1]
X86 = pytest.mark.skipif("x86_64" not in os.uname().machine, reason="names x86 features")


def fresh(code: str, **variables: str) -> str:
    """What code prints in a process with these environment variables."""
    environment = {**os.environ, **variables}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


COMPARE = """
from nash_swarm.quantizers.runtime.cpu.simd import paths
from support.products import differences
print(paths.NAMES[paths.choose()], differences())
"""


def test_the_best_path_is_the_default_and_others_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.VARIABLE, raising=False)
    assert paths.available()[-1] == "generic"
    assert paths.NAMES[paths.choose()] == paths.available()[0]
    assert paths.NAMES[paths.choose("generic")] == "generic"
    monkeypatch.setenv(paths.VARIABLE, "generic")
    assert paths.choose() == paths.GENERIC
    monkeypatch.setenv(paths.VARIABLE, "avx9000")
    with pytest.raises(UsageError, match="NASH_SWARM_KERNELS"):
        paths.choose()


@pytest.mark.parametrize("path", paths.available())
def test_every_path_of_this_cpu_is_exact(path: str) -> None:
    assert differences(path) == []


@pytest.mark.slow
@X86
def test_a_cpu_without_vector_extensions() -> None:
    assert fresh(COMPARE, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == "generic []"


@pytest.mark.slow
@X86
@pytest.mark.skipif("avx2" not in paths.available(), reason="needs AVX2")
def test_a_cpu_with_avx2_only() -> None:
    features = "+avx2,+fma,+avx,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2"
    assert fresh(COMPARE, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features) == "avx2 []"


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    code = """
from nash_swarm.quantizers.runtime.cpu.compiled import kernel
from nash_swarm.quantizers.runtime.cpu.simd.paths import GENERIC
found = kernel(GENERIC, True).stats
print(sum(found.cache_hits.values()), sum(found.cache_misses.values()))
"""
    assert fresh(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0 1"
    assert fresh(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1 0"


def test_the_fingerprint_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    monkeypatch.setattr("nash_swarm.quantizers.runtime.cpu.fingerprint._FOLDER", tmp_path)
    (tmp_path / "tiles.py").write_text("one")
    fingerprint.cache_clear()
    one = fingerprint()
    (tmp_path / "tiles.py").write_text("two")
    fingerprint.cache_clear()
    assert len({before, one, fingerprint()}) == 3
    fingerprint.cache_clear()
