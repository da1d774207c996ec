"""What is missing is named with what brings it, for an installation from an index and for a checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support.suite import some_results

from nash_swarm import extras
from nash_swarm.errors import DataError, LeftOutWarning, UsageError
from nash_swarm.integrations.harness import require_harness
from nash_swarm.models.source import load_source
from nash_swarm.suite import fanning
from nash_swarm.suite.synthetic.report import results_of, write_files
from nash_swarm.suite.writing import write_report

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)


def _both(extra: str) -> str:
    return f'run: pip install "nash-swarm[{extra}]" (from a checkout: pip install -e ".[{extra}]")'


def test_gguf_files(lacking: None, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError) as raised:
        load_source(tmp_path / "m.gguf")
    assert str(raised.value) == f"reading GGUF files needs gguf and accelerate; {_both('gguf')}"


def test_tasks_of_the_harness(lacking: None) -> None:
    with pytest.raises(UsageError) as raised:
        require_harness(["a", "b"])
    assert str(raised.value) == f"the tasks a, b need lm_eval and accelerate; {_both('eval')}"


def test_figures_are_not_left_out_in_silence(lacking: None, tmp_path: Path) -> None:
    with pytest.warns(LeftOutWarning) as told:
        write_report(some_results(), tmp_path)
        (tmp_path / "solvers").mkdir()
        write_files(results_of([], "command"), tmp_path / "solvers")
    assert [str(one.message).endswith(_both("report")) for one in told] == [True, True]
    assert not any(tmp_path.rglob("*.png"))


def test_cluster_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="--backend ray needs ray, which is not installed; run: pip install ray"):
        fanning.check_backend(1, "ray")


def test_every_extra_that_is_named_exists() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        line.split("how_to_install(")[1].split(")")[0].strip("'\"")
        for path in (ROOT / "nash_swarm").rglob("*.py")
        for line in path.read_text().splitlines()
        if "how_to_install(" in line and "def " not in line
    }
    assert named == {"gguf", "eval", "report", "peft"} <= set(known)
    assert not [
        path
        for path in (ROOT / "nash_swarm").rglob("*.py")
        if 'pip install "nash-swarm[' in path.read_text() and path.name != "extras.py"
    ]
