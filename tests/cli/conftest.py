"""The command line run in this process, on a tiny model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.bench import Bench


@dataclass(frozen=True)
class Outcome:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def values(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        values = json.loads(self.out)
        assert isinstance(values, dict)
        return values


Command = Callable[..., Outcome]


def _run(*arguments: object) -> Outcome:
    from nash_swarm.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["nash-swarm", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Command:
    """`nash-swarm` with these arguments."""
    return _run


@dataclass(frozen=True)
class Stages:
    """What the stages of one run wrote, and what they said."""

    game: Path
    allocation: Path
    packed: Path
    measured: dict[str, Any]
    solved: dict[str, Any]
    saved: dict[str, Any]


@pytest.fixture(scope="session")
def stages(bench: Bench, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """measure -> solve -> pack, through files."""
    folder = tmp_path_factory.mktemp("stages")
    game, allocation, packed = folder / "game.npz", folder / "allocation.json", folder / "packed"
    return Stages(
        game, allocation, packed,
        command("measure", bench.model, "-o", game, "--text", bench.text, "--windows", 2, "--json", "-q").values,
        command("solve", game, "--bits", 5, "-o", allocation, "--json").values,
        command("pack", bench.model, allocation, "-o", packed, "--json", "-q").values,
    )  # fmt: skip


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[None]:
    """Holds that the test leaves no file in `tmp_path` that it did not make before `unchanged` was asked for."""
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before
