from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nash_swarm.errors import BudgetError, DataError
from nash_swarm.game import Allocation, BitGame, Budget, Calibration
from nash_swarm.game.certificate import certify
from nash_swarm.quantizers.formats.known import cut

LAYOUT = cut("m", "linear", (16, 64), "tile", group_size=32, ordered=True)
TABLES: dict[str, Any] = {
    "strategies": (2, 4),
    "damage": np.array([[2, 1], [3, 0]], np.float32),
    "memory": LAYOUT.memory((2, 4)),
    "fixed_bits": 10,
    "parameters": 1024,
    "tensors": (LAYOUT,),
    "permutations": {"m": np.arange(64)[::-1]},
    "calibration": Calibration(np.zeros((2, 4), np.int32), "zeros"),
}


def with_value(table: np.ndarray, value: float) -> np.ndarray:
    changed = table.copy()
    changed[1, 0] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": (4, 2)}, "ascending"),
        ({"strategies": (2, 2)}, "ascending"),
        ({"strategies": (), "damage": np.zeros((2, 0), np.float32)}, "ascending"),
        ({"strategies": (2, 4, 8)}, "agents, 3"),
        ({"strategies": (2, 7)}, "packed format"),
        ({"damage": with_value(TABLES["damage"], np.nan)}, "NaN"),
        ({"damage": with_value(TABLES["damage"], np.inf)}, "NaN or infinite"),
        ({"damage": with_value(TABLES["damage"], -1)}, "negative"),
        ({"damage": TABLES["damage"].astype(np.float64)}, "float32"),
        ({"damage": TABLES["damage"][:1]}, "must both be"),
        ({"damage": TABLES["damage"][:0], "memory": TABLES["memory"][:0]}, "must both be"),
        ({"memory": TABLES["memory"].astype(np.float64)}, "int64"),
        ({"memory": TABLES["memory"].astype(np.int32)}, "int64"),
        ({"memory": with_value(TABLES["memory"], 0)}, "positive"),
        ({"memory": with_value(TABLES["memory"], 10**6)}, "must not fall"),
        ({"fixed_bits": -1}, "negative"),
        ({"parameters": -1}, "negative"),
        ({"permutations": {}}, "belong together"),
        ({"permutations": {"m": np.zeros(64, np.int64)}}, "no permutation"),
        ({"permutations": {"m": np.arange(63)}}, "no permutation"),
        ({"tensors": (cut("m", "linear", (16, 96), "tile", group_size=32),)}, "belong together"),
        ({"tensors": (cut("n", "linear", (16, 96), "tile", group_size=32),)}, "3 agents"),
        ({"tensors": (cut("m", "linear", (16, 64), "tile", start=1),)}, "starts at"),
    ],
)
def test_damaged_games_are_refused(change: dict[str, Any], message: str) -> None:
    BitGame(**TABLES)
    with pytest.raises(DataError, match=message):
        BitGame(**TABLES | change)


@pytest.mark.parametrize(
    "tokens",
    [np.zeros(4), np.zeros((0, 4), np.int32), np.zeros((2, 1), np.int32), np.zeros((2, 4)), -np.ones((2, 4), np.int32)],
)
def test_damaged_calibration_is_refused(tokens: np.ndarray) -> None:
    with pytest.raises(DataError, match="calibration tokens"):
        Calibration(tokens, "text")


def test_memory_may_be_one_row_for_all() -> None:
    memory = np.broadcast_to(np.array([2, 4]), (2, 2))
    game = BitGame((2, 4), TABLES["damage"], memory, 3)
    assert game.smallest_bits() == 7 and game.largest_bits() == 11
    with pytest.raises(DataError, match="must not fall"):
        BitGame((2, 4), TABLES["damage"], np.broadcast_to(np.array([4, 2]), (2, 2)))


def test_sums_over_a_profile() -> None:
    game = BitGame((2, 4), TABLES["damage"], np.array([[5, 6], [7, 9]]), 100)
    choices = np.array([1, 0], np.uint8)
    assert game.used_bits(choices) == 100 + 6 + 7
    assert game.total_damage(choices) == 1 + 3
    assert (game.smallest_bits(), game.largest_bits()) == (112, 115)


def test_a_budget_too_small_names_the_smallest() -> None:
    game = BitGame((2, 4), TABLES["damage"], np.array([[5, 6], [7, 9]]), 100, parameters=30)
    assert game.capacity(Budget(112, "112 bits")) == 12
    with pytest.raises(
        BudgetError, match=r"111 bits is too small: .* \[2, 4\] is 14 bytes = 3.7334 bits/param"
    ) as raised:
        game.capacity(Budget(111, "111 bits"))
    assert raised.value.exit_code == 2


def allocation(**change: Any) -> Allocation:
    game = BitGame(**TABLES)
    budget = Budget(10**6, "1 Mbit")
    choices = np.array([1, 0], np.uint8)
    values: dict[str, Any] = {
        "strategies": game.strategies, "choices": choices, "budget": budget, "solver": "hand",
        "certificate": certify(game, budget, choices), "tensors": game.tensors, "permutations": game.permutations,
    }  # fmt: skip
    return Allocation(**values | change)


def test_widths_and_histogram_of_an_allocation() -> None:
    found = allocation()
    assert found.widths(LAYOUT).tolist() == [[4, 2]]
    assert found.histogram() == {2: 1, 4: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": np.array([1, 2], np.uint8)}, "no index"),
        ({"choices": np.array([1, 0])}, "uint8"),
        ({"choices": np.array([[1, 0]], np.uint8)}, "uint8"),
        ({"choices": np.zeros(0, np.uint8)}, "uint8"),
        ({"choices": np.zeros(3, np.uint8)}, "2 agents"),
        ({"strategies": (2, 7)}, "packed format"),
        ({"strategies": (4, 2)}, "ascending"),
        ({"permutations": {}}, "belong together"),
        ({"permutations": {"m": np.ones(64, np.int64)}}, "no permutation"),
    ],
)
def test_damaged_allocations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        allocation(**change)
