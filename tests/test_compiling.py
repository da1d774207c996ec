"""Compiled code: where it is kept, whom it is taken from, and what happens when it cannot be."""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config

from nash_swarm import compiled_places, compiling
from nash_swarm.compiled_places import VARIABLE, Place, Places, make_private
from nash_swarm.errors import DataError, SlowerWarning, UsageError
from nash_swarm.files.atomic import check_new_folder
from nash_swarm.files.temporary import settle_temporary_folder, temporary_folder

ROOT = Path(__file__).parents[1]
MODULE = """
from nash_swarm.compiling import njit

@njit("int64(int64)", cache=True)
def double(x):
    return 2 * x
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module's folder, with the user's cache and temporary files beside it; nothing decided yet."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/module.py").write_text(MODULE)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    forget()
    yield tmp_path / "source"
    forget()


def forget() -> None:
    """Have everything decided and said anew."""
    for decided in (compiled_places.places_of, compiled_places._private_root, compiling._tell):
        decided.cache_clear()


def close(*folders: Path) -> None:
    """Have no user, not even root, write to folders: files are in their places."""
    for folder in folders:
        folder.write_text("")


def load(source: Path) -> Any:
    """The module's function, as a new process would have it."""
    for known in (compiling.source_stamp, compiling._read_source):
        known.cache_clear()
    spec = importlib.util.spec_from_file_location("module", source / "module.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.double(21) == 42
    return module.double


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def test_the_first_place_that_can_be_written(source: Path, tmp_path: Path) -> None:
    beside, user, chosen = source / "__pycache__", tmp_path / "cache", str(tmp_path / "chosen")
    found = compiled_places.places_of(source, "")
    assert [place.folder for place in found.read] == [beside] and found.written == Place(beside) and not found.trouble
    found = compiled_places.places_of(source, chosen)
    assert str(found.read[0].folder).startswith(chosen) and found.written == found.read[0] and len(found.read) == 1
    beside.rmdir()
    close(beside)
    compiled_places.places_of.cache_clear()
    found = compiled_places.places_of(source, "")
    assert found.written is not None and found.written.folder.is_relative_to(user) and not found.trouble


def test_a_chosen_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    close(tmp_path / "chosen")
    found = compiled_places.places_of(source, str(tmp_path / "chosen"))
    assert found.written == Place(source / "__pycache__")
    assert found.trouble.startswith(f"{VARIABLE} ({tmp_path / 'chosen'}) cannot be written")


def test_a_private_place_is_the_last(source: Path, tmp_path: Path) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    with pytest.warns(SlowerWarning, match=f"compiled code is kept in {tmp_path}/temporary/nash-swarm-") as said:
        first = load(source)
    assert len(said) == 1 and not hits(first)
    root = tmp_path / "temporary" / f"nash-swarm-{os.getuid()}"
    assert root.stat().st_mode & 0o777 == 0o700 and Path(first.stats.cache_path).parent == root
    assert hits(load(source)) == 1  # and no warning: nothing had to be compiled


def test_no_home_makes_no_folder_called_tilde(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")  # what is left of a home that nobody knows
    monkeypatch.chdir(tmp_path)
    close(source / "__pycache__")
    found = compiled_places.places_of(source, "")
    assert found.written is not None and found.written.private is not None
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("kind", ["open", "link", "file", "other"])
def test_what_others_can_write_is_not_run(kind: str, source: Path, tmp_path: Path) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    root = tmp_path / "temporary" / f"nash-swarm-{os.getuid()}"
    if kind == "link":
        (tmp_path / "target").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "target")
    elif kind == "file":
        close(root)
    else:
        root.mkdir(mode=0o700)
        if kind == "open":
            root.chmod(0o770)
        elif os.getuid():
            pytest.skip("only root can give a folder away")
        else:
            os.chown(root, 65534, 65534)
    assert not make_private(root)
    found = compiled_places.places_of(source, "")
    assert found.written is not None and found.written.private not in (None, root)
    assert "until this process ends" in found.trouble
    assert found.written.private.stat().st_mode & 0o777 == 0o700
    compiled_places._remove(found.written.private, os.getpid() + 1)  # a forked child's exit
    assert found.written.private.is_dir()
    compiled_places._remove(found.written.private, os.getpid())
    assert not found.written.private.exists()


def test_a_place_that_is_taken_over_is_not_read_any_more(source: Path, tmp_path: Path) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    with pytest.warns(SlowerWarning):
        load(source)
    root = tmp_path / "temporary" / f"nash-swarm-{os.getuid()}"
    root.chmod(0o777)
    with pytest.warns(SlowerWarning, match="it can no longer be written, or not by this user alone"):
        assert not hits(load(source))


def test_a_folder_that_anybody_can_exchange_is_none(source: Path, tmp_path: Path) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    (tmp_path / "temporary").chmod(0o777)
    assert compiled_places.places_of(source, "").written is None
    (tmp_path / "temporary").chmod(0o1777)
    forget()
    assert compiled_places.places_of(source, "").written is not None


def test_the_working_directory_is_no_place(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "temporary")  # where Python ends if nothing else can be written
    found = compiled_places.places_of(source, "")
    assert found.written is None and "every process compiles anew" in found.trouble
    assert not any((tmp_path / "temporary").iterdir())


def test_without_a_place_everything_runs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close(source / "__pycache__", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.warns(SlowerWarning, match="every process compiles anew") as said:
        assert load(source).stats.cache_path is None
        assert not hits(load(source))
    assert len(said) == 1


def test_what_can_only_be_read_serves(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(source)
    filled = Place(source / "__pycache__")
    monkeypatch.setattr(compiling, "places_of", lambda *_: Places((filled,), None, "trouble"))
    function = load(source)
    assert hits(function) == 1 and function.stats.cache_path == str(filled.folder)


def test_code_of_another_source_is_not_taken(source: Path) -> None:
    load(source)
    (source / "module.py").write_text(f"{MODULE}# what it calls has changed, say\n")
    assert not hits(load(source))


USER = """
from nash_swarm.compiling import njit
from package.inner import (
    middle as m,
)

@njit("int64(int64)", cache=True)
def double(x):
    return m.FACTOR * x
"""


@pytest.mark.parametrize(
    ("changed", "taken"), [("middle.py", False), ("far.py", False), ("other.py", True), ("lazy.py", True)]
)
def test_code_is_as_old_as_what_is_inlined(
    changed: str, taken: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file imports at its top is, directly or not; what stands beside it or is imported later is not."""
    inner = source / "package/inner"
    inner.mkdir(parents=True)
    (inner / "middle.py").write_text(
        "from package.inner.far import FACTOR\n\ndef f():\n    import package.inner.lazy\n"
    )
    (inner / "far.py").write_text("FACTOR = 2\n")
    for name in ("other", "lazy"):
        (inner / f"{name}.py").write_text("")
    (source / "package/user.py").write_text(USER)
    monkeypatch.syspath_prepend(str(source))

    def load_user() -> Any:
        for name in [name for name in sys.modules if name.startswith("package")]:
            del sys.modules[name]
        for known in (compiling.source_stamp, compiling._read_source):
            known.cache_clear()
        importlib.import_module("package.inner.other")
        importlib.import_module("package.inner.lazy")
        return importlib.import_module("package.user").double

    load_user()
    assert hits(load_user()) == 1
    with (inner / changed).open("a") as file:
        file.write("# changed\n")
    assert hits(load_user()) == taken
    if changed == "far.py":
        (inner / "far.py").write_text("FACTOR = 3\n# and of another size\n")
        assert load_user()(5) == 15


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [b"", b"\x80\x04broken"])
def test_damaged_files_are_replaced(suffix: str, damage: bytes, source: Path) -> None:
    load(source)
    (file,) = (source / "__pycache__").glob(f"*.{suffix}")
    file.write_bytes(damage)
    assert not hits(load(source))
    assert hits(load(source)) == 1


def test_a_full_disk_stops_nobody(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    with pytest.warns(SlowerWarning, match="No space left on device"):
        load(source)


def test_no_kernel_goes_past_this() -> None:
    """Numba's own decorators give up where there is no folder to write to."""
    for room in ("nash_swarm", "solvers", "quantizers"):
        for path in (ROOT / room).rglob("*.py"):
            if path.name == "compiling.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numba"):
                    taken = {name.name for name in node.names}
                    assert not taken & {"jit", "njit", "cfunc", "vectorize", "guvectorize", "stencil", "jitclass"}, path
                if isinstance(node, ast.Import):
                    assert "numba" not in {name.name for name in node.names}, path


@pytest.mark.parametrize("command", [("bench-solvers", "-o", "x"), ("warmup",)])
def test_a_numba_that_compiles_nothing_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nash_swarm", *command], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr == "nash-swarm: NUMBA_DISABLE_JIT is set, and nash-swarm's kernels exist only compiled; unset it\n"
    )


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert temporary_folder() == Path(tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", "as it was")
    settle_temporary_folder()
    assert os.environ["TMPDIR"] == "as it was"

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(DataError, match="set TMPDIR"):
        temporary_folder()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr("nash_swarm.files.temporary._IN_MEMORY", str(tmp_path / "missing"))
    settle_temporary_folder()
    assert tempfile.tempdir is None  # nothing can be done
    monkeypatch.setattr("nash_swarm.files.temporary._IN_MEMORY", str(tmp_path))
    settle_temporary_folder()
    assert tempfile.tempdir == os.environ["TMPDIR"] == str(tmp_path)


def test_what_waits_on_disk_names_the_folder_that_it_cannot(tmp_path: Path) -> None:
    import torch

    from nash_swarm.models.offload import mapped

    close(tmp_path / "closed")
    with pytest.raises(DataError, match=f"cannot write to {tmp_path / 'closed'}: Not a directory"):
        mapped(torch.zeros(4), tmp_path / "closed")


def test_a_volume_is_no_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir()
    check_new_folder(tmp_path / "volume")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "volume")
    with pytest.raises(UsageError, match="choose a folder inside it"):
        check_new_folder(tmp_path / "volume")
    check_new_folder(tmp_path / "volume" / "model")


def test_peaks_that_cannot_be_forgotten_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nash_swarm.suite import memory

    monkeypatch.setattr(memory, "_FORGET", tmp_path)  # is there and cannot be written
    memory.forget_peak()
