from __future__ import annotations

import pytest
from support.games import make_game

from nash_swarm.game import BitGame


@pytest.fixture(params=[False, True], ids=["sizes", "shared"])
def game(request: pytest.FixtureRequest) -> BitGame:
    return make_game(3000, shared=request.param)
