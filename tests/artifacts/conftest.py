from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.models import allocate, tiny_llama

import nash_swarm as ns


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed tied Llama on disk; not to be changed."""
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    packed = ns.pack(model, allocate(game), quantizer="rtn", quiet=True)
    return ns.save(packed, tmp_path_factory.mktemp("llama") / "out")


@pytest.fixture
def copy(llama_folder: Path, tmp_path: Path) -> Path:
    """A copy of `llama_folder` that a test may damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "copy"))
