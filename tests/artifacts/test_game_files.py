"""Games and allocations on disk: they come back as they were, and damaged files are data errors, never crashes."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import allocate

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.game import Allocation, BitGame, Calibration
from nash_swarm.quantizers.formats.known import cut


def small_game(granularity: str = "tile", *, text: bool = True) -> BitGame:
    rng = np.random.default_rng(0)
    tensors, start = [], 0
    for name, ordered in (("a.b", True), ("c", False)):
        tensors.append(cut(name, "linear", (20, 40), granularity, group_size=32, ordered=ordered, start=start))
        start += tensors[-1].agents
    strategies = (2, 4, 8)
    memory = np.concatenate([tensor.memory(strategies) for tensor in tensors])
    if granularity == "parameter":
        memory = np.broadcast_to(memory[:1], memory.shape)
    damage = -np.sort(-rng.random((start, 3)).astype(np.float32), axis=1)
    calibration = Calibration(rng.integers(0, 99, (3, 5)).astype(np.int32), "some text") if text else None
    return BitGame(
        strategies, damage, memory, 1000, 1600, tuple(tensors), {"a.b": rng.permutation(40)}, calibration,
        {"model": "x", "seed": 3, "settings": {"damping": 0.01}},
    )  # fmt: skip


def same(one: Any, two: Any) -> None:
    """Equal in every field, arrays included."""
    assert type(one) is type(two)
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(two, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        elif isinstance(left, dict) and field.name == "permutations":
            assert list(left) == list(right)
            for name in left:
                np.testing.assert_array_equal(left[name], right[name])
        elif isinstance(left, Calibration):
            same(left, right)
        else:
            assert left == right, field.name


@pytest.mark.parametrize("granularity", ["layer", "block", "tile", "parameter"])
@pytest.mark.parametrize("text", [False, True])
def test_games_and_allocations_come_back(tmp_path: Path, granularity: str, text: bool) -> None:
    game = small_game(granularity, text=text)
    loaded = ns.load_game(ns.save_game(game, tmp_path / "game.npz"))
    same(game, loaded)
    assert loaded.memory.strides[0] == 0 or granularity != "parameter"
    allocation = allocate(game)
    same(allocation, ns.load_allocation(ns.save_allocation(allocation, tmp_path / "allocation.json")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allocation.json", "game.npz"]


def test_a_measured_game_comes_back(game: BitGame, allocation: Allocation, tmp_path: Path) -> None:
    same(game, ns.load_game(ns.save_game(game, tmp_path / "game.npz")))
    same(allocation, ns.load_allocation(ns.save_allocation(allocation, tmp_path / "allocation.json")))


def test_arrays_that_promise_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    path = ns.save_game(small_game(), tmp_path / "game.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(path, **(arrays | {"damage": np.zeros((40_000_000, 3), np.float32)}))
    assert path.stat().st_size < 10**6
    with pytest.raises(DataError, match="too large for the file"):
        ns.load_game(path)
    header = b"\x93NUMPY\x01\x00\x48\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 3)}"
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if name != "damage"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("damage.npy", header.ljust(81) + b"\n" + bytes(120))
    with pytest.raises(DataError, match=r"array of shape \(9999999999, 3\)|damaged"):
        ns.load_game(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("damage.npy", b"")
    with pytest.raises(DataError, match="occurs twice"):
        ns.load_game(path)


def test_missing_files_and_folders_are_data_errors(tmp_path: Path) -> None:
    for load in (ns.load_game, ns.load_allocation):
        with pytest.raises(DataError, match=r"no .* file at"):
            load(tmp_path / "missing")
        with pytest.raises(DataError):
            load(tmp_path)
    with pytest.raises(DataError, match="cannot write"):
        ns.save_game(small_game(), tmp_path / "missing" / "game.npz")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    game = small_game()
    ns.save_game(game, folder / "game")
    ns.save_allocation(allocate(game), folder / "allocation")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


LOADERS: dict[str, Any] = {"game": ns.load_game, "allocation": ns.load_allocation}


@pytest.mark.parametrize("kind", LOADERS)
@settings(max_examples=300)
@given(data=st.data())
def test_changed_bytes_are_data_errors_or_still_valid(
    kind: str, saved: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(saved[kind])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / kind
    path.write_bytes(content[:kept])
    try:
        loaded = LOADERS[kind](path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        # what loads has been validated: a change of the file has only changed some value
        assert sum(tensor.agents for tensor in loaded.tensors) == (
            loaded.agents if kind == "game" else len(loaded.choices)
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(data=st.data())
def test_changed_values_of_an_allocation_are_data_errors_or_still_valid(
    saved: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    values = json.loads(saved["allocation"])
    place, key = values, data.draw(st.sampled_from(sorted(values)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(JSON)
    path = tmp_path / "allocation"
    path.write_text(json.dumps(values))
    try:
        loaded = ns.load_allocation(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert sum(loaded.histogram().values()) == len(loaded.choices)
        for tensor in loaded.tensors:
            assert loaded.widths(tensor).shape == (tensor.row_tiles, tensor.groups)
        ns.save_allocation(loaded, path, overwrite=True)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", "[" * 100_000, '{"format": 2}', "\0"])
def test_other_files_are_no_allocations(tmp_path: Path, text: str) -> None:
    path = tmp_path / "allocation"
    path.write_text(text)
    for load in LOADERS.values():
        with pytest.raises(DataError, match=str(path)):
            load(path)


def test_a_newer_format_says_so(saved: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "allocation"
    path.write_bytes(saved["allocation"].replace(b'"format": 1', b'"format": 9'))
    with pytest.raises(DataError, match="newer nash-swarm"):
        ns.load_allocation(path)


def test_an_array_that_would_not_fit_is_not_inflated(saved: dict[str, bytes], tmp_path: Path) -> None:
    values = json.loads(saved["allocation"])
    path = tmp_path / "allocation"
    for change in ({"agents_by_width": {"2": 10**15}}, {"agents_by_width": {"2": -1}}):
        path.write_text(json.dumps(values | change))
        with pytest.raises(DataError, match="not plausible"):
            ns.load_allocation(path)
