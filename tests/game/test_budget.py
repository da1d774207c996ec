from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nash_swarm.errors import UsageError
from nash_swarm.game import Budget


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("60MB", 60 * 10**6), ("60 mb", 60 * 10**6), (" 1.5GiB ", 3 * 2**29), ("750KB", 750_000), ("2KiB", 2048),
        ("0.5MiB", 2**19), ("17B", 17), ("1.5B", 1), (123, 123),
    ],
)  # fmt: skip
def test_sizes(size: str | int, expected: int) -> None:
    budget = Budget.of_size(size)
    assert budget.total_bits == expected * 8


@pytest.mark.parametrize(
    "size",
    ["", "MB", "60", "60TB", "-1MB", "1e3MB", "60MBs", "0MB", "0.0B", ".5MB", "nanMB", "infB", "9" * 400 + "MB", 0, -5],
)
def test_what_is_no_size_is_refused(size: str | int) -> None:
    with pytest.raises(UsageError):
        Budget.of_size(size)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        assert Budget.of_size(text).total_bits >= 0
    except UsageError as error:
        assert "60MB" in str(error)


@given(st.floats(0.01, 64), st.integers(1, 10**12))
def test_bits_never_allow_more_than_asked(bits: float, parameters: int) -> None:
    total = Budget.of_bits(bits, parameters).total_bits
    assert total <= bits * parameters < total + 1 + 1e-15 * bits * parameters


@pytest.mark.parametrize("bits", [0.0, -1.0, math.nan, math.inf, -math.inf, 1e308])
def test_what_is_no_number_of_bits_is_refused(bits: float) -> None:
    with pytest.raises(UsageError):
        Budget.of_bits(bits, 10**9)


def test_exactly_one_way_to_say_it() -> None:
    assert Budget.of(100, bits=3.0) == Budget(300, "3 bits/param")
    assert Budget.of(100, size="1KB") == Budget(8000, "1KB")
    for both in ({}, {"bits": 3.0, "size": "1KB"}):
        with pytest.raises(UsageError, match="once"):
            Budget.of(100, **both)
