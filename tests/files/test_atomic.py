from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.atomic import check_new_folder, new_file, new_folder


def test_a_file_appears_whole_and_readable_by_all(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with new_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_left_of_a_file_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(KeyError), new_file(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_of_a_folder_that_fails(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "out"
    target.mkdir()
    if overwrite:
        (target / "a").write_text("old")
    with pytest.raises(KeyError), new_folder(target, overwrite=overwrite) as temporary:
        (temporary / "a").write_text("half")
        raise KeyError
    assert [path.read_text() for path in target.iterdir()] == ["old"] * overwrite
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(UsageError, match="not empty"), new_folder(target):
        pass
    with new_folder(target, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [target]


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        check_new_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(DataError, match="does not exist"):
        check_new_folder(tmp_path / "missing" / "out")
    with pytest.raises(DataError, match="cannot write"), new_file(tmp_path / "missing" / "a"):
        pass
    with pytest.raises(DataError, match="cannot write"), new_file(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
