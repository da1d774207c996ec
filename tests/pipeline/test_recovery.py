"""Games that are kept for the run after a killed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.models import tiny_llama

import nash_swarm as ns
from nash_swarm.errors import UsageError
from nash_swarm.game import BitGame
from nash_swarm.pipeline.pieces import Pieces
from nash_swarm.pipeline.recovery import kept_game


def measured(pieces: Pieces) -> BitGame:
    return ns.measure(tiny_llama(tied=True), damage="magnitude", text=None, group_size=32, pieces=pieces, quiet=True)


def never(pieces: Pieces) -> BitGame:
    raise AssertionError("measured again")


def kill(out: Path, windows: int) -> BitGame:
    """The game of a run that ends without a word after it was measured."""
    with (
        pytest.raises(KeyboardInterrupt),
        kept_game(out, {"windows": windows}, tiny_llama(tied=True), 10**9, measured) as game,
    ):
        raise KeyboardInterrupt
    return game


def test_the_next_run_for_the_same_output_has_the_game(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = kill(out, 2)
    with kept_game(out, {"windows": 2}, tiny_llama(tied=True), 10**9, never) as second:
        np.testing.assert_array_equal(second.damage, first.damage)
    assert not list(tmp_path.iterdir())


def test_a_run_with_other_settings_removes_all_that_was_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(out, 2)
    (kept,) = tmp_path.iterdir()
    (tmp_path / f".{kept.name}.abcd_123.tmp").touch()  # killed while it wrote
    (tmp_path / f".{kept.name.replace('out', 'other')}.abcd_123.tmp").touch()
    with kept_game(out, {"windows": 3}, tiny_llama(tied=True), 10**9, measured):
        assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == [f"..other{kept.name[4:]}.abcd_123.tmp"]


def test_a_usage_error_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError), kept_game(tmp_path / "out", {}, tiny_llama(tied=True), 10**9, measured):
        raise UsageError("no such budget")
    assert not list(tmp_path.iterdir())


def test_a_large_game_is_not_kept(tmp_path: Path) -> None:
    with kept_game(tmp_path / "out", {}, tiny_llama(tied=True), 10, measured):
        assert not list(tmp_path.iterdir())
