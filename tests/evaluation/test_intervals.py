"""Confidence intervals against their definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nash_swarm.evaluation.intervals import Estimate, accuracy, difference, sign_test

answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(
    lambda pairs: (np.array([one for one, _ in pairs]), np.array([other for _, other in pairs]))
)


@given(answers)
def test_an_accuracy_is_wilsons(pair: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]) -> None:
    right, _ = pair
    told = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    found = accuracy(right)
    assert found.value == right.mean()
    assert (found.low, found.high) == pytest.approx((told.low, told.high), abs=1e-9)


@given(answers)
def test_a_difference_turns_round_with_its_sides(
    pair: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
) -> None:
    one, back = difference(*pair), difference(*pair[::-1])
    assert -1 <= one.low <= one.value + 1e-12 and one.value - 1e-12 <= one.high <= 1
    assert (one.value, one.low, one.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-12)


def test_the_interval_of_a_difference_covers_it_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        # both models know 60 % of the questions, the second another 10 %
        luck = rng.random(150)
        one, other = luck < 0.6, (luck < 0.55) | ((luck > 0.8) & (luck < 0.95))
        found = difference(one, other)
        covered += found.low <= 0.6 - 0.7 <= found.high
    assert 0.92 < covered / 600 < 0.99


def test_pairs_make_the_interval_narrower() -> None:
    right = np.arange(200) % 3 > 0
    other = right.copy()
    other[:4] = ~other[:4]
    shuffled = np.random.default_rng(0).permutation(other)
    paired, apart = difference(right, other), difference(right, shuffled)
    assert paired.value == apart.value
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


def test_the_sign_test_counts_what_only_one_gets_right() -> None:
    right, other = np.ones(10, np.bool_), np.ones(10, np.bool_)
    assert sign_test(right, other) == 1.0
    other[:5] = False
    assert sign_test(right, other) == pytest.approx(2 / 2**5)


def test_from_a_standard_error() -> None:
    found = Estimate.of_error(0.5, 0.1)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=1e-4)
