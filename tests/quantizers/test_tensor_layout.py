from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layouts import Case, by_weight, cases, layouts

from nash_swarm.errors import DataError, UsageError
from nash_swarm.names import GRANULARITIES
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.layout import SUPPORTED_WIDTHS, TensorLayout
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout


@given(cases(per_weight=False))
def test_bytes_accounted_are_the_bytes_packed(case: Case) -> None:
    layout, strategies = case.layout, case.strategies
    packed = layout.format.pack(case.rounded, case.agent_widths, layout, case.permutation, strategies)
    choice = np.searchsorted(strategies, case.agent_widths)
    bits = int(np.take_along_axis(layout.memory(strategies), choice[:, None], axis=1).sum())
    assert bits % 8 == 0
    assert bits // 8 + layout.fixed_bytes(len(strategies)) == len(packed.buffer)


@given(cases(per_weight=True, most=60))
def test_bytes_accounted_for_single_weights_cover_the_bytes_packed(case: Case) -> None:
    layout, strategies = case.layout, case.strategies
    packed = layout.format.pack(case.rounded, case.agent_widths, layout, case.permutation, strategies)
    bits = int(case.agent_widths.astype(np.int64).sum())
    accounted = bits / 8 + layout.fixed_bytes(len(strategies))
    assert len(packed.buffer) <= accounted <= len(packed.buffer) + len(strategies)
    memory = layout.memory(strategies)
    assert memory.strides[0] == 0 and memory.shape == (layout.agents, len(strategies))
    assert memory[0].tolist() == list(strategies)


@given(layouts(), st.integers(0, 100))
def test_expand_gives_every_weight_the_width_of_its_agent(layout: TensorLayout, seed: int) -> None:
    widths = np.random.default_rng(seed).integers(0, 250, layout.agents).astype(np.uint8)
    tiles = layout.expand(widths)
    if isinstance(layout, WeightLayout):
        spread = tiles
    else:
        assert tiles.shape == (layout.row_tiles, layout.groups)
        spread = np.repeat(np.repeat(tiles, 16, axis=0), layout.group_size, axis=1)[: layout.rows, : layout.columns]
    np.testing.assert_array_equal(spread, by_weight(layout, widths))


@given(layouts(per_weight=False), st.integers(0, 100))
def test_gather_is_the_sum_over_what_expand_spreads(layout: TensorLayout, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1000, (layout.row_tiles, layout.groups, 2))
    number = layout.expand(np.arange(layout.agents))
    expected = np.zeros((layout.agents, 2), np.int64)
    np.add.at(expected, number.ravel(), values.reshape(-1, 2))
    np.testing.assert_array_equal(layout.gather(values), expected)


@given(layouts(per_weight=False))
def test_memory_rises_with_the_width(layout: TensorLayout) -> None:
    memory = layout.memory(SUPPORTED_WIDTHS)
    assert memory.dtype == np.int64 and (memory[:, 0] > 0).all() and (np.diff(memory, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("granularity", "kind", "agents"),
    [
        ("layer", "linear", 1),
        ("block", "linear", 4),
        ("block", "embedding", 3),
        ("block", "tied", 3),
        ("tile", "embedding", 17 * 4),
        ("parameter", "linear", 260 * 200),
    ],
)
def test_agents_of_each_granularity(granularity: str, kind: str, agents: int) -> None:
    layout = cut("m", kind, (260, 200), granularity, group_size=64, start=7)
    assert layout.agents == agents
    assert layout.span == slice(7, 7 + agents)


@pytest.mark.parametrize("group_size", [0, -32, 31, 48])
def test_impossible_group_sizes_are_refused(group_size: int) -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        cut("m", "linear", (16, 32), "block", group_size=group_size)


def test_an_unknown_granularity_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=", ".join(GRANULARITIES)):
        cut("m", "linear", (16, 32), "row")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0}, {"columns": -1}, {"rows_per_agent": 8}, {"groups_per_agent": 0}, {"group_size": 40},
        {"kind": "matrix"}, {"start": -1}, {"scale_bits": 5},
    ],
)  # fmt: skip
def test_impossible_layouts_are_refused(change: dict[str, object]) -> None:
    values = {"name": "m", "kind": "linear", "rows": 16, "columns": 32, "group_size": 32}
    values |= {"rows_per_agent": 16, "groups_per_agent": 1}
    TensorLayout(**values)
    with pytest.raises(DataError, match="impossible layout"):
        TensorLayout(**values | change)


def test_values_of_the_wrong_number_of_agents_are_refused() -> None:
    with pytest.raises(DataError, match="agents"):
        cut("m", "linear", (16, 64), "tile", group_size=32).expand(np.zeros(3))
