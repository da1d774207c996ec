"""Records of layouts: each kind reads its own, without fields that have defaults too, and refuses those that lie."""

from __future__ import annotations

from typing import Any

import pytest

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.known import cut, layout_of

TILES = cut("m", "linear", (40, 96), "tile", group_size=32, ordered=True, start=3, levels="normal")
WEIGHTS = cut("m", "linear", (40, 96), "parameter", group_size=32, start=3)


@pytest.mark.parametrize("layout", [TILES, WEIGHTS], ids=["tiles", "weights"])
def test_records_are_read_back(layout: Any) -> None:
    assert layout_of(layout.values()) == layout


def test_what_has_a_default_may_be_missing() -> None:
    values = WEIGHTS.values()
    for name in ("levels", "scale_bits", "rows_per_agent", "groups_per_agent", "ordered"):
        del values[name]
        assert layout_of(values) == WEIGHTS


@pytest.mark.parametrize(
    "lie",
    [
        {"rows_per_agent": 16}, {"groups_per_agent": 1}, {"levels": "normal"}, {"scale_bits": 4},
        {"per_weight": None}, {"columns": "96"}, {"more": 1}, {"more": [1]}, {"levels": {}},
    ],
    ids=str,
)  # fmt: skip
def test_records_of_single_weights_that_lie_are_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="WeightLayout"):
        layout_of(WEIGHTS.values() | lie)


@pytest.mark.parametrize("lie", [{"per_weight": True}, {"per_weight": "?"}, {"more": 1}, {"scale_bits": 5}], ids=str)
def test_records_of_tiles_that_lie_are_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"TensorLayout|impossible"):
        layout_of(TILES.values() | lie)
