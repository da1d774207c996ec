"""Nothing of the user's is lost: what each command replaces, and what it does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.folders import contents, packed_folder

_MISSING = "no/such-model-folder/at-all"


def refused(told: Any, *words: str) -> None:
    assert told.code == 2, told.err
    assert told.err.startswith("nash-swarm: ") and told.err.count("\n") == 1
    assert all(word in told.err for word in words), told.err


def test_a_thesis_stays(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    words = ("thesis.tex", "did not write")
    refused(command("compress", bench.model, "--bits", 6, "-o", out, "--overwrite"), *words)
    refused(command("pack", bench.model, stages.allocation, "-o", out, "--overwrite"), *words)
    refused(command("demo", "-o", out, "--overwrite"), *words)
    tasks = ("--tasks", "cloze", "--text", bench.text, "--save-tasks", out, "--overwrite")
    refused(command("eval", bench.model, *tasks), *words)
    packed_folder(out)
    refused(command("compress", bench.model, "--bits", 6, "-o", out, "--overwrite"), *words)
    for name in ("config.json", "model.safetensors"):
        (out / name).unlink()
    assert contents(tmp_path) == before
    # refused before anything is looked for: the model does not exist
    refused(command("compress", _MISSING, "--bits", 6, "-o", out, "--overwrite"), *words)


def test_the_source_stays(
    stages: Any, bench: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(bench.model, tmp_path / "models" / "model"))
    (tmp_path / "link").symlink_to(model)
    before = contents(tmp_path)
    monkeypatch.chdir(model)
    for out in (model, model.parent, tmp_path, ".", "..", tmp_path / "link"):
        for name, more in (("compress", ["--bits", 6]), ("pack", [stages.allocation])):
            refused(command(name, model, *more, "-o", out, "--overwrite", "-q"))
    for out in (model / "config.json", "config.json", tmp_path / "link" / "model.safetensors"):
        refused(command("measure", model, "--text", bench.text, "-o", out, "--overwrite", "-q"), "folder that is read")
    monkeypatch.chdir(tmp_path)
    assert contents(tmp_path) == before


def test_a_packed_model_is_replaced_on_request(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    out = Path(shutil.copytree(stages.packed, tmp_path / "out"))
    (out / "LICENSE").write_text("of the source")
    refused(command("pack", bench.model, stages.allocation, "-o", out, "-q"), "not empty", "--overwrite")
    told = command("pack", bench.model, stages.allocation, "-o", out, "--overwrite", "--quantizer", "rtn", "-q")
    assert told.code == 0, told.err
    assert not (out / "LICENSE").exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_hours_of_measuring_stay(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    game, allocation = tmp_path / "game.npz", tmp_path / "a.json"
    shutil.copy(stages.game, game)
    shutil.copy(stages.allocation, allocation)
    before = contents(tmp_path)
    # before the model is looked for
    refused(command("measure", _MISSING, "-o", game), "exists", "--overwrite")
    refused(command("solve", game, "--bits", 5.5, "-o", allocation), "exists", "--overwrite")
    refused(command("solve", game, "--bits", 5.5, "-o", game, "--overwrite"), "is what is read")
    text = tmp_path / "text.txt"
    shutil.copy(bench.text, text)
    refused(command("measure", bench.model, "--text", text, "-o", text, "--overwrite"), "is what is read")
    text.unlink()
    assert contents(tmp_path) == before
    measured = command("measure", bench.model, "--text", bench.text, "--windows", 1, "-o", game, "--overwrite", "-q")
    assert measured.code == 0, measured.err
    solved = command("solve", game, "--bits", 5.5, "-o", allocation, "--overwrite")
    assert solved.code == 0, solved.err
    after = contents(tmp_path)
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in after)


def test_a_page_stays(stages: Any, command: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    refused(command("inspect", stages.packed, "--html", page), "exists", "--overwrite")
    assert page.read_text() == "mine"
    assert command("inspect", stages.packed, "--html", page, "--overwrite").code == 0
    assert page.read_text().startswith("<!doctype html>")
    refused(command("inspect", stages.packed, "--html", stages.packed / "config.json", "--overwrite"), "that is read")


def test_task_files_are_replaced_by_task_files(stages: Any, bench: Any, command: Any, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    asked = ("eval", stages.packed, "--tasks", "cloze", "--text", bench.text, "--questions", 2, "--save-tasks", tasks)
    assert command(*asked, "-q").code == 0
    refused(command(*asked, "-q"), "not empty", "--overwrite")
    assert command(*asked, "-q", "--overwrite").code == 0
    refused(command("compress", bench.model, "--bits", 6, "-o", tasks, "--overwrite"), "cloze.yaml")


def test_the_demo_replaces_no_other_packed_model(stages: Any, command: Any, tmp_path: Path) -> None:
    out = Path(shutil.copytree(stages.packed, tmp_path / "out"))
    before = contents(out)
    refused(command("demo", "-o", out), "not empty", "--overwrite")
    assert contents(out) == before


@pytest.mark.parametrize("name", ["bench", "bench-solvers"])
@pytest.mark.parametrize("there", ["results.csv", "report.md", "results.json"])
def test_files_that_are_no_reports_stay(name: str, there: str, bench: Any, command: Any, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    asked = ("bench", bench.model, "--text", bench.text) if name == "bench" else ("bench-solvers", "--sizes", "100")
    refused(command(*asked, "-o", tmp_path, "-q"), there, "choose another folder")
    assert contents(tmp_path) == {there: b"mine"}


def test_a_report_is_written_over_by_its_own_kind_only(bench: Any, command: Any, tmp_path: Path) -> None:
    report = tmp_path / "report"
    asked = ("bench-solvers", "--sizes", "50", "--games", "ties", "--solvers", "uniform", "-o", report, "-q")
    assert command(*asked).code == 0
    # a user's own files beside it are no hindrance
    (report / "notes.txt").write_text("mine")
    (report / "cells" / ".git").mkdir()
    (report / "cells" / ".git" / "thesis").write_text("years of work")
    assert command(*asked).code == 0
    kept = contents(report)
    assert kept["notes.txt"] == b"mine" and kept["cells/.git/thesis"] == b"years of work"
    refused(command("bench", bench.model, "--text", bench.text, "-o", report, "-q"), "results.csv")
    assert contents(report) == kept
    told = command(
        "bench", bench.model, "--text", bench.text, "-o", tmp_path / "new", "--peers", report / "results.csv"
    )
    assert told.code == 1, "a table of another kind is read, and refused as such"


def test_a_table_of_peers_is_not_written_over(bench: Any, command: Any, tmp_path: Path) -> None:
    for kind in ("games", "cells", "allocations", "packings"):
        (tmp_path / kind).mkdir()
    (tmp_path / "results.csv").write_text("peers")
    asked = ("bench", bench.model, "--text", bench.text, "-o", tmp_path, "-q")
    refused(command(*asked, "--peers", tmp_path / "results.csv"), "is what is read")
    assert (tmp_path / "results.csv").read_text() == "peers"
