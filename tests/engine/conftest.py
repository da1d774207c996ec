from __future__ import annotations

from typing import Any

import pytest
from support.fused import build, pack

from nash_swarm.engine import gated, norm, rows, stack


@pytest.fixture(scope="module")
def packed() -> Any:
    return pack(build(attention_bias=True, mlp_bias=True))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kinds of fused modules called their kernels."""
    found: list[str] = []
    for place in (norm, gated, rows, stack):
        what = "kernel" if place is stack else "kernels"
        real = getattr(place, what)
        name = place.__name__.rsplit(".", 1)[1]
        monkeypatch.setattr(place, what, lambda real=real, name=name: (found.append(name), real())[1])
    return found
