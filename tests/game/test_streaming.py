"""Streamed games: what they read, refuse and certify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from support.games import make_game

from nash_swarm.errors import BudgetError, DataError, UsageError
from nash_swarm.game import BitGame, Budget, streaming
from nash_swarm.game.certificate import certify
from nash_swarm.game.market import clear
from nash_swarm.game.streaming import StreamedGame, Table, certify_stream
from nash_swarm.game.tables import Tables
from nash_swarm.suite.synthetic.streams import Synthetic, transformer_tiles

WIDTHS = (2, 3, 4, 5, 6, 8)


def streamed(game: BitGame) -> StreamedGame:
    return StreamedGame.of(game)


def third(game: BitGame | StreamedGame) -> Budget:
    return Budget((2 * game.smallest_bits() + game.largest_bits()) // 3, "a third of the way")


def test_the_certificate_is_that_of_the_game_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    game = make_game(3000, shared=True)
    budget = third(game)
    clearing = clear(Tables.of(game), game.capacity(budget))
    choices = clearing.narrow.copy()
    choices[7], choices[2999] = 0, 1
    expected = certify(game, budget, choices, clearing.price)
    assert expected.unilateral_regret > 0 and expected.exchange_regret > 0
    for chunk in (streaming.CHUNK, 101):
        monkeypatch.setattr(streaming, "CHUNK", chunk)
        found = certify_stream(streamed(game), budget, choices, clearing.price)
        assert found.lower_bound == pytest.approx(expected.lower_bound, rel=1e-12)
        assert replace(found, lower_bound=expected.lower_bound) == expected


def test_the_bound_holds_at_any_price() -> None:
    game = make_game(300, shared=True)
    budget = third(game)
    clearing = clear(Tables.of(game), game.capacity(budget))
    for price in clearing.price * np.array([0.0, 0.3, 0.99, 1.01, 3.0, 1e9]):
        assert certify_stream(streamed(game), budget, clearing.narrow, float(price)).lower_bound <= clearing.bound


def test_what_is_no_profile_is_refused() -> None:
    game = make_game(50, shared=True)
    stream, budget = streamed(game), third(game)
    fine = np.zeros(50, np.uint8)
    with pytest.raises(DataError, match="uint8"):
        certify_stream(stream, budget, fine[1:], 0.0)
    with pytest.raises(DataError, match="index"):
        certify_stream(stream, budget, fine + np.uint8(6), 0.0)
    with pytest.raises(DataError, match="allowed"):
        certify_stream(stream, budget, fine + np.uint8(5), 0.0)
    with pytest.raises(DataError, match="price"):
        certify_stream(stream, budget, fine, float("nan"))
    with pytest.raises(BudgetError, match="smallest feasible"):
        stream.capacity(Budget(100, "100 bits"))


def test_a_game_must_make_sense() -> None:
    damage = np.ones((4, 2), np.float32)
    with pytest.raises(DataError, match="shape"):
        StreamedGame((2, 3, 4), Table(damage), np.array([[2, 3, 4]]))
    with pytest.raises(DataError, match="ascending"):
        StreamedGame((3, 2), Table(damage), np.array([[2, 3]]))
    with pytest.raises(DataError, match="fall"):
        StreamedGame((2, 3), Table(damage), np.array([[3, 2]]))
    with pytest.raises(DataError, match="float32"):
        Table(damage.astype(np.float64))


def test_a_source_that_returns_something_else_is_refused() -> None:
    @dataclass(frozen=True)
    class Short:
        shape: tuple[int, int] = (10, 2)

        def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
            return np.ones((stop - start - 1, 2), np.float32)

    with pytest.raises(DataError, match="returned"):
        StreamedGame((2, 3), Short(), np.array([[2, 3]])).over_chunks(lambda *chunk: None)


def test_tables_are_read_from_files(tmp_path: Path) -> None:
    damage = make_game(200, shared=True).damage
    np.save(tmp_path / "damage.npy", damage)
    table = Table.open(tmp_path / "damage.npy")
    assert table.shape == damage.shape
    assert np.array_equal(table.read(30, 77), damage[30:77])
    (tmp_path / "text.npy").write_text("no array")
    for name in ("text.npy", "missing.npy"):
        with pytest.raises(DataError, match=name):
            Table.open(tmp_path / name)


def splitmix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def test_synthetic_damage_is_what_numpy_makes() -> None:
    starts, locations = np.array([0, 10, 10, 300, 1000]), np.array([0.0, 5.0, -1.0, 2.0])
    source = Synthetic(WIDTHS, starts, locations, spread=1.5, seed=9)
    golden = np.uint64(0x9E3779B97F4A7C15)
    key = splitmix(np.array([9], np.uint64) + golden)
    counters = np.arange(1000, dtype=np.uint64) * np.uint64(2)
    one, other = (splitmix(key + (counters + np.uint64(k)) * golden) for k in (1, 2))
    quarters = [(one >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4)]
    normal = (np.sum(quarters, axis=0) / 65535 - 2) * np.sqrt(3)
    assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.1
    shares = np.stack([(other >> np.uint64(10 * s)) & np.uint64(0x3FF) for s in range(6)], axis=1) / 1023
    part = np.repeat(np.arange(4), np.diff(starts))
    scale = np.exp(locations[part] + 1.5 * normal)
    expected = scale[:, None] * 4.0 ** -np.array(WIDTHS) * (0.7 + 0.6 * shares)
    np.testing.assert_allclose(source.read(0, 1000), expected, rtol=1e-6)
    for start, stop in ((0, 1), (9, 11), (250, 999)):
        assert np.array_equal(source.read(start, stop), source.read(0, 1000)[start:stop])
    assert not np.array_equal(source.read(0, 9), replace(source, seed=10).read(0, 9))


def test_synthetic_damage_needs_parts_in_order() -> None:
    with pytest.raises(UsageError, match="order"):
        Synthetic(WIDTHS, np.array([0, 5, 3]), np.zeros(2))
    with pytest.raises(UsageError, match="six"):
        Synthetic((2, 3, 4, 5, 6, 8, 16), np.array([0, 5]), np.zeros(1))


def test_tiles_of_a_transformer_are_counted_from_its_shapes() -> None:
    shapes = {"hidden": 128, "layers": 3, "heads": 4, "kv_heads": 2, "intermediate": 192, "vocabulary": 320}
    game, tensors = transformer_tiles(WIDTHS, **shapes)
    block = 128 * 128 * 2 + 64 * 128 * 2 + 3 * 192 * 128
    assert game.parameters == 2 * 320 * 128 + 3 * block
    assert game.agents == game.parameters // (16 * 64) == sum(tensor.agents for tensor in tensors)
    # whatever all tiles play, the game's size is the tensors'
    for place, width in enumerate(WIDTHS):
        exact = sum(int(t.memory((width,)).sum()) + 8 * t.fixed_bytes(len(WIDTHS)) for t in tensors)
        assert exact == game.fixed_bits + game.agents * int(game.memory[0, place])
    with pytest.raises(UsageError, match="multiple"):
        transformer_tiles(WIDTHS, **{**shapes, "vocabulary": 321})
