"""Tiny models, their games and packed forms, made once and shared: not to be changed by a test."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, settings
from support.bench import Bench, make_bench
from support.models import MODELS, VOCABULARY, allocate
from support.nothing_missing import pytest_addoption, pytest_runtest_makereport

import nash_swarm as ns
from nash_swarm.game import Allocation, BitGame

__all__ = ["pytest_addoption", "pytest_runtest_makereport"]

# the models are so small that torch's threads would mostly wait for each other
torch.set_num_threads(1)

# the first example of a kernel's test includes its compilation
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def tokens() -> npt.NDArray[np.int32]:
    """Calibration token ids, int32 (windows, length)."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (6, 32)).astype(np.int32)


@pytest.fixture(scope="session", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    """Every tiny model in turn."""
    return MODELS[request.param]()


@pytest.fixture(scope="session")
def game(model: Any, tokens: npt.NDArray[np.int32]) -> BitGame:
    """The game of `model`."""
    return ns.measure(model, tokens=tokens, group_size=32, quiet=True)


@pytest.fixture(scope="session")
def allocation(game: BitGame) -> Allocation:
    """An allocation of mixed widths for `model`."""
    return allocate(game)


@pytest.fixture(scope="session")
def packed(model: Any, allocation: Allocation) -> Any:
    """`model` packed."""
    return ns.pack(model, allocation, quiet=True)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A model directory and a text."""
    return make_bench(tmp_path_factory.mktemp("bench"))
