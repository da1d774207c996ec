"""Where the bits of a model went: mean bits of every matrix by layer and module, with its widths and damage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nash_swarm.artifacts.contents import Contents
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.profiles import pick
from nash_swarm.names import OUTSIDE
from nash_swarm.quantizers.formats.base import layouts_of


@dataclass(frozen=True)
class Spot:
    """One matrix.

    Attributes:
        tensor: its path in the model.
        layer: number of its block, or `OUTSIDE`.
        module: its path inside the block.
        bits: mean bits per weight, scales and all.
        weights: how many it has.
        shares: share of the weights that has each width.
        damage: predicted damage of its agents, in the unit of the estimator; `None` where no game is at hand.
    """

    tensor: str
    layer: str
    module: str
    bits: float
    weights: int
    shares: Mapping[int, float] = field(default_factory=dict)
    damage: float | None = None


@dataclass(frozen=True)
class HeatMap:
    """The matrices of a model, in its order.

    Attributes:
        spots: the matrices.
    """

    spots: tuple[Spot, ...]

    @property
    def layers(self) -> list[str]:
        """Rows: what is outside of blocks first, then the blocks."""
        found = dict.fromkeys(spot.layer for spot in self.spots)
        return sorted(found, key=lambda layer: -1 if layer == OUTSIDE else int(layer))

    @property
    def modules(self) -> list[str]:
        """Columns: the modules of blocks, in the order in which the first block that has them has them."""
        return list(dict.fromkeys(spot.module for spot in self.spots if spot.layer != OUTSIDE))

    @property
    def outside(self) -> list[Spot]:
        """Matrices that are in no block: embeddings and output heads."""
        return [spot for spot in self.spots if spot.layer == OUTSIDE]

    def at(self, layer: str, module: str) -> Spot | None:
        """The matrix of that layer and module."""
        return next((spot for spot in self.spots if (spot.layer, spot.module) == (layer, module)), None)

    def shares(self) -> dict[int, float]:
        """Share of all weights that has each width."""
        total = sum(spot.weights for spot in self.spots)
        widths = sorted({width for spot in self.spots for width in spot.shares})
        return {
            width: sum(spot.shares.get(width, 0.0) * spot.weights for spot in self.spots) / total for width in widths
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as short as a page with many maps wants them."""
        layers, modules = self.layers, list(dict.fromkeys(spot.module for spot in self.spots))
        return {
            "layers": layers,
            "modules": modules,
            "spots": [
                [
                    layers.index(spot.layer), modules.index(spot.module), round(spot.bits, 4), spot.weights,
                    {str(width): round(share, 4) for width, share in spot.shares.items() if share},
                    None if spot.damage is None else float(f"{spot.damage:.4g}"),
                ]
                for spot in self.spots
            ],
            "shares": {str(width): share for width, share in self.shares().items()},
        }  # fmt: skip


def place(tensor: str) -> tuple[str, str]:
    """Layer and module of a path: (``3``, ``mlp.up_proj``) for ``model.layers.3.mlp.up_proj``."""
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", tensor)
    return (match[1], match[2]) if match else (OUTSIDE, tensor.rsplit(".", 1)[-1])


def of_allocation(allocation: Allocation, game: BitGame) -> HeatMap:
    """The map of an allocation of `game`."""
    spots = []
    damages, bits = pick(game.damage, allocation.choices), pick(game.memory, allocation.choices)
    for tensor in layouts_of(allocation.tensors):
        used = int(bits[tensor.span].sum()) + 8 * tensor.fixed_bytes(len(allocation.strategies))
        widths, counts = np.unique(allocation.widths(tensor), return_counts=True)
        shares = dict(zip(widths.tolist(), (counts / counts.sum()).tolist(), strict=True))
        damage = float(damages[tensor.span].sum(dtype=np.float64))
        spots.append(
            Spot(tensor.name, *place(tensor.name), used / tensor.weights, tensor.weights, shares, damage)
        )  # fmt: skip
    return HeatMap(tuple(spots))


def of_contents(contents: Contents) -> HeatMap:
    """The map of a packed model's files."""
    return HeatMap(
        tuple(
            Spot(name, *place(name), bits, contents.tensor_weights[name], contents.tensor_shares[name])
            for name, bits in contents.tensor_bits.items()
        )
    )
