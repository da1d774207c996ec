from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.bench import Bench
from support.folders import packed_folder

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.atomic import check_new_file, check_new_folder, check_space, clean_up, new_file, new_folder
from nash_swarm.game import Allocation, BitGame
from nash_swarm.models.offload import mapped


def test_a_file_appears_whole_and_readable_by_all(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with new_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_left_of_a_file_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(KeyError), new_file(target, overwrite=True) as temporary:
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
        packed_folder(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(KeyError), new_folder(target, overwrite=overwrite) as temporary:
        (temporary / "a").write_text("half")
        raise KeyError
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = packed_folder(tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"), new_folder(target):
        pass
    with new_folder(target, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [target]


def left_behind(tmp_path: Path, suffix: str, name: str = "out") -> Path:
    left = packed_folder(tmp_path / f".{name}.abcd_123{suffix}")
    (left / "README.md").write_text("left")
    return left


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = left_behind(tmp_path, ".tmp")
    (tmp_path / ".out.abcd_124.tmp").touch()
    others = [tmp_path / name for name in (".out.abcd_123.other", ".out.more.abcd_123.tmp", ".outer.abcd_123.tmp")]
    for other in others:
        other.touch()
    with new_folder(tmp_path / "out") as temporary:
        assert not left.exists()
        # a living process keeps its own
        clean_up(tmp_path / "out")
        (temporary / "a").write_text("1")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "out"])


def test_what_a_killed_process_was_replacing_is_put_back(tmp_path: Path) -> None:
    left_behind(tmp_path, ".old", "out.more")
    left_behind(tmp_path, ".old")
    left_behind(tmp_path, ".tmp")
    clean_up(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.more.abcd_123.old", "out"]
    assert (tmp_path / "out" / "README.md").read_text() == "left"
    left_behind(tmp_path, ".old")
    with new_file(tmp_path / "other"), new_folder(tmp_path / "out", overwrite=True) as temporary:
        (temporary / "b").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.more.abcd_123.old", "other", "out"]


def test_the_disk_is_asked_for_space(tmp_path: Path) -> None:
    check_space(tmp_path / "out", 1)
    with pytest.raises(DataError, match="are free on the disk"):
        check_space(tmp_path / "out", 10**18)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory, with the options given."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    place = tmp_path / "mounted"
    place.mkdir()
    mounts = 0

    def mount(options: str) -> Path:
        nonlocal mounts
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("file systems cannot be mounted here")
        mounts += 1
        return place

    yield mount
    for _ in range(mounts):
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_error(
    mounted: Callable[[str], Path], packed: Any, game: BitGame, allocation: Allocation
) -> None:
    place = mounted("size=16k")
    for write in (
        lambda: ns.save(packed, place / "out"),
        lambda: ns.save_game(game, place / "game.npz"),
        lambda: ns.save_allocation(allocation, place / "allocation.json"),
        lambda: mapped(torch.zeros(10**5), place),
    ):
        (place / "filling").write_bytes(bytes(12_000))
        with pytest.raises(DataError, match=r"cannot write.*(space|full)"):
            write()
        assert [path.name for path in place.iterdir()] == ["filling"]


def test_a_full_disk_is_noticed_before_measuring(mounted: Callable[[str], Path], bench: Bench) -> None:
    place = mounted("size=64k")
    with pytest.raises(DataError, match="are free on the disk"):
        ns.compress(str(bench.model), bits=6, text=str(bench.text), out=place / "out", quiet=True)
    assert list(place.iterdir()) == []


def test_a_tokenizer_that_does_not_fit_is_one_error(mounted: Callable[[str], Path], packed: Any, bench: Bench) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(bench.model)
    place = mounted("size=96k")
    assert sum(path.stat().st_size for path in bench.model.glob("tokenizer*")) > 10_000
    room = 96 * 1024 - 4096 * 4
    (place / "filling").write_bytes(bytes(room - sum(t.numel() for t in packed.state_dict().values()) - 20_000))
    with pytest.raises(DataError, match=r"cannot write"):
        ns.save(packed, place / "out", tokenizer=tokenizer)
    assert [path.name for path in place.iterdir()] == ["filling"]


def test_a_read_only_folder_is_refused_at_once(mounted: Callable[[str], Path], packed: Any, bench: Bench) -> None:
    place = mounted("ro")
    for write in (
        lambda: ns.save(packed, place / "out"),
        lambda: ns.compress("no such model", bits=6, out=place / "out"),
        lambda: check_new_file(place / "game.npz"),
    ):
        with pytest.raises(DataError, match="read-only"):
            write()


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
