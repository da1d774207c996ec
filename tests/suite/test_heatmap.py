"""Heat maps: every weight and byte in its place, from an allocation and from a packed model's files alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nash_swarm as ns
from nash_swarm.artifacts.contents import read_contents
from nash_swarm.cli import show
from nash_swarm.game import Allocation, BitGame
from nash_swarm.suite.heatmap import of_allocation, of_contents, place


@pytest.mark.parametrize(
    ("tensor", "where"),
    [
        ("model.layers.3.mlp.up_proj", ("3", "mlp.up_proj")),
        ("transformer.h.11.attn.c_attn", ("11", "attn.c_attn")),
        ("model.embed_tokens", ("outside", "embed_tokens")),
        ("lm_head", ("outside", "lm_head")),
    ],
)
def test_layer_and_module_of_a_path(tensor: str, where: tuple[str, str]) -> None:
    assert place(tensor) == where


def test_an_allocation_and_its_files_have_one_map(
    game: BitGame, allocation: Allocation, packed: Any, tmp_path: Path
) -> None:
    ours = of_allocation(allocation, game)
    ns.save(packed, tmp_path / "out")
    theirs = of_contents(read_contents(tmp_path / "out"))
    assert {spot.tensor: spot.weights for spot in ours.spots} == {spot.tensor: spot.weights for spot in theirs.spots}
    by_name = {spot.tensor: spot for spot in theirs.spots}
    for spot in ours.spots:
        assert spot.bits == pytest.approx(by_name[spot.tensor].bits)
        assert spot.shares == pytest.approx(dict(by_name[spot.tensor].shares))
        assert sum(spot.shares.values()) == pytest.approx(1)
    # nothing is lost on the way: bits and damage add up to the certificate's
    fixed = game.fixed_bits - 8 * sum(tensor.fixed_bytes(len(game.strategies)) for tensor in game.tensors)
    assert sum(spot.bits * spot.weights for spot in ours.spots) == pytest.approx(
        allocation.certificate.used_bits - fixed
    )
    assert sum(spot.damage or 0 for spot in ours.spots) == pytest.approx(allocation.certificate.predicted_damage)
    assert ours.shares() == pytest.approx(
        {bits: share for bits, share in show.weight_shares(allocation).items() if share}
    )


def test_the_map_has_its_matrices_where_they_are(game: BitGame, allocation: Allocation) -> None:
    found = of_allocation(allocation, game)
    assert found.layers == ["outside", "0", "1"]
    values = found.to_dict()
    placed = {(values["layers"][spot[0]], values["modules"][spot[1]]): spot[2] for spot in values["spots"]}
    assert placed == {(spot.layer, spot.module): pytest.approx(spot.bits, abs=1e-4) for spot in found.spots}
    assert found.at("0", found.modules[0]) is not None and found.at("7", "x") is None
