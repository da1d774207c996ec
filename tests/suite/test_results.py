"""Rows, the folder they are kept in, and the files they are written to."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suite import a_row

from nash_swarm.errors import DataError, OutputError, UsageError
from nash_swarm.suite.folder import ReportFolder, check_report_folder, key_of
from nash_swarm.suite.results import Results, read_table, save_csv, write_results
from nash_swarm.suite.rows import COLUMNS, Row, labels, loss_figures, size_figures
from nash_swarm.suite.writing import write_report

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(method=st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), loss=finite, kl=st.none() | finite)
def test_rows_come_back_from_csv_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, method: str, loss: float, kl: float | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "results.csv"
    rows = [a_row(method=method, loss=loss, kl=kl), a_row(bits=2, note="a, b")]
    save_csv(map(asdict, rows), COLUMNS, path, overwrite=True)
    first, second = read_table(path)
    assert (first["method"], float(first["loss"])) == (method, loss)
    assert first["kl"] == ("" if kl is None else repr(kl)) and second["note"] == "a, b"


def test_the_header_of_the_csv_is_the_columns(tmp_path: Path) -> None:
    save_csv([], COLUMNS, tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_text() == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.rstrip("\n") + ",1\n",
        lambda text: text.rsplit(",", 1)[0],
    ],
)
def test_a_damaged_table_is_one_error(tmp_path: Path, change: object) -> None:
    path = tmp_path / "results.csv"
    save_csv([asdict(a_row(loss=3.9))], COLUMNS, path)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError):
        read_table(path)


def test_json_has_every_figure_with_its_circumstances(tmp_path: Path) -> None:
    write_results(Results((a_row(), a_row(method="nash")), "nash-swarm bench x", facts={"seconds": 1.5}), tmp_path)
    values = json.loads((tmp_path / "results.json").read_text())
    assert [Row(**row) for row in values["rows"]] == [a_row(), a_row(method="nash")]
    assert values["command"] == "nash-swarm bench x" and values["seconds"] == 1.5
    assert {"python", "torch", "nash-swarm"} <= values["versions"].keys()


def test_what_follows_from_size_and_loss() -> None:
    sizes = size_figures(1000, 375)
    assert sizes["bits_per_parameter"] == 3 and sizes["compression"] == 1 - 3 / 32
    losses = loss_figures(3.0, 2.5)
    assert losses["delta_loss"] == 0.5
    assert losses["perplexity"] == math.exp(3) and losses["reference_perplexity"] == math.exp(2.5)


def test_labels_tell_rows_apart_and_say_no_more() -> None:
    row = a_row(method="nash", quantizer="gptq")
    assert labels([row, a_row(method="uniform", quantizer="gptq")]) == ["nash", "uniform"]
    assert labels([row, replace(row, quantizer="rtn", bits=4)]) == ["nash, gptq", "nash, rtn"]


def test_keys_change_with_every_value_and_not_with_their_order() -> None:
    values = {"a": 1, "b": [1, 2], "c": {"d": "x"}}
    others = [{**values, "a": 2}, {**values, "b": [2, 1]}, {**values, "c": {"d": "y"}}, {**values, "e": None}]
    keys = [key_of(each) for each in (values, *others)]
    assert len(set(keys)) == len(keys)
    assert key_of(dict(reversed(values.items()))) == keys[0] and len(keys[0]) == 16


def test_finished_work_is_found_and_half_written_work_is_not(tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path / "report")
    assert folder.find("cells", "k") is None
    folder.keep("cells", "k", {"row": 1})
    (tmp_path / "report" / "cells" / ".k.json.abc.tmp").write_text("{")
    folder.file("cells", "cut").write_text('{"row"')
    again = ReportFolder(tmp_path / "report")
    assert again.find("cells", "k") == {"row": 1} and again.find("cells", "cut") is None
    assert sorted(path.name for path in (tmp_path / "report" / "cells").iterdir()) == ["cut.json", "k.json"]


def test_a_report_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="folder"):
        ReportFolder(tmp_path / "file")
    with pytest.raises(DataError, match="cannot write"):
        ReportFolder("/proc/report")


def test_a_report_leaves_alone_what_it_did_not_write(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    (folder / "games" / ".git").mkdir(parents=True)
    (folder / "games" / ".git" / "HEAD").write_text("years of work")
    (folder / "games" / ".abcd1234").mkdir()
    (folder / "games" / ".abcd1234" / "thesis.tex").write_text("years of work")
    (folder / "packings").mkdir()
    (folder / "packings" / ".abcd_234").mkdir()
    (folder / "packings" / ".abcd_234" / "model").mkdir()
    before = sorted(path for path in folder.rglob("*") if "packings" not in path.parts)
    ReportFolder(folder)
    assert {*before} <= {*folder.rglob("*")} and not list((folder / "packings").iterdir())
    # finished work makes it a report's, other things in the same places do not
    (folder / "results.csv").write_text("an earlier report's")
    check_report_folder(folder)
    (folder / "games" / "chess").mkdir()
    for check in (check_report_folder, ReportFolder):
        with pytest.raises(OutputError, match="games/chess"):
            check(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").touch()
    check_report_folder(other)
    (other / "figures").mkdir()
    with pytest.raises(OutputError, match="figures"):
        check_report_folder(other)


def test_results_replace_others_only_on_request(tmp_path: Path) -> None:
    for name in ("results.json", "results.csv"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=name):
            write_results(Results((a_row(),)), tmp_path)
        with pytest.raises(OutputError, match="exists"):
            write_report(Results((a_row(),)), tmp_path)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / "results.csv").unlink(missing_ok=True)
        (tmp_path / "results.json").unlink(missing_ok=True)
    (tmp_path / "figures").mkdir()
    with pytest.raises(OutputError, match="figures"):
        write_report(Results((a_row(),)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
