"""The type of tuning's products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nash_swarm.errors import UsageError
from nash_swarm.recipe import Tuning
from nash_swarm.tuning import precision


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[torch.dtype], None]]:
    """Slow products of a type down by a twentieth of a second."""
    multiply = torch.nn.functional.linear

    def choose(dtype: torch.dtype) -> None:
        def held_up(x: torch.Tensor, *rest: Any) -> torch.Tensor:
            time.sleep(0.05 if x.dtype == dtype else 0)
            return multiply(x, *rest)

        precision._faster.cache_clear()
        monkeypatch.setattr(torch.nn.functional, "linear", held_up)

    yield choose
    precision._faster.cache_clear()


@pytest.mark.parametrize(("slower", "chosen"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_faster_type_is_found(slow: Callable[[torch.dtype], None], slower: str, chosen: str) -> None:
    slow(getattr(torch, slower))
    assert precision.compute_dtype("auto") is getattr(torch, chosen)
    # whoever names a type gets it
    assert precision.compute_dtype("bfloat16") is torch.bfloat16
    assert precision.compute_dtype("float32") is torch.float32


def test_other_types_are_refused() -> None:
    with pytest.raises(UsageError, match="float16"):
        Tuning(precision="float16")  # type: ignore[arg-type]
