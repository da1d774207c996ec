"""`--nothing-missing`: what is skipped for want of a package fails where nothing may be missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CASES = """
import pytest

def test_missing():
    pytest.skip("peft is not installed")

def test_import():
    pytest.importorskip("no_such_package_at_all")

def test_elsewhere():
    pytest.skip("needs AVX2")

@pytest.mark.skipif(True, reason="the demo model is not installed")
def test_mark():
    pass
"""


@pytest.mark.parametrize(
    ("options", "outcome"), [([], "4 skipped"), (["--nothing-missing"], "2 failed, 1 skipped, 1 error")]
)
def test_skips_become_failures(options: list[str], outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "conftest.py").write_text("from nothing_missing import *")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(TESTS / "support")}
    done = subprocess.run(
        [*words, *options, tmp_path], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert outcome in done.stdout, done.stdout + done.stderr
