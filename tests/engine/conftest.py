from __future__ import annotations

from typing import Any

import pytest
from support.quick import build, pack

from nash_swarm.engine import attention, decoder_layer, gated, norm, rows, stack


@pytest.fixture(scope="module")
def packed() -> Any:
    return pack(build(attention_bias=True, mlp_bias=True))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kinds of quick modules called their kernels."""
    found: list[str] = []
    for place in (norm, gated, attention, rows, decoder_layer, stack):
        what = "kernel" if place is stack else "kernels"
        real = getattr(place, what)
        name = place.__name__.rsplit(".", 1)[1]
        monkeypatch.setattr(place, what, lambda real=real, name=name: (found.append(name), real())[1])
    return found
