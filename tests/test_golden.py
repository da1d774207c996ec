"""Games, allocations and packed files of tiny models are the committed ones, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BENCHMARKS, run, script

RESULTS = BENCHMARKS / "results" / "golden.json"
golden = script("golden")


@pytest.fixture
def kept() -> dict[str, Any]:
    """The committed digests and what they depend on."""
    values: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", golden.TINY)
def test_bytes_are_the_committed_ones(name: str, kept: dict[str, Any]) -> None:
    """On another processor or with other versions: those of a second run."""
    found = golden.digests([name])
    parts = {part.rsplit("/", 1)[1] for part in found}
    assert parts == {"damage", "memory", "choices", "model.safetensors", "logits"}
    assert len(found) == len(parts) * len(golden.ESTIMATORS) * len(golden.granularities(name))
    expected = golden.digests([name]) if golden.strangers(kept) else kept["digests"]
    assert golden.differences(found, expected) == []


def test_the_check_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "golden.json"
    run("golden", "--only", "gpt2", "--json", path)
    values = json.loads(path.read_text(encoding="utf-8"))
    changed, lost = list(values["digests"])[:2]
    values["digests"] |= {changed: "0" * 64, "gpt2/never": "0" * 64, "smollm2/not run": "0" * 64}
    del values["digests"][lost]
    path.write_text(json.dumps(values), encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run("golden", "--only", "gpt2", "--check", path)
    told = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("differs: ")]
    assert ended.value.code == 1 and sorted(told) == sorted([changed, lost, "gpt2/never"])


@pytest.mark.parametrize(("kind", "key"), [("machine", "processor"), ("versions", "torch")])
def test_other_processors_and_versions_are_not_compared(
    kind: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "golden.json"
    values = golden.conditions()
    values[kind][key] = "another"
    path.write_text(json.dumps({**values, "digests": {}}), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        run("golden", "--only", "gpt2", "--check", path)
    assert ended.value.code == 2 and f"{key}: another there" in capsys.readouterr().out
