"""Packed modules around random matrices."""

from __future__ import annotations

import numpy as np
import torch

from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.modules import PackedEmbedding, PackedLinear
from support.layouts import Case, rounded


def pack(case: Case) -> PackedTensor:
    return case.layout.format.pack(case.rounded, case.agent_widths, case.layout, case.permutation, case.strategies)


def linear(case: Case, bias: bool = False) -> PackedLinear:
    """The matrix as a linear layer; biases are 1, 2, 3, ..."""
    packed = pack(case)
    module = PackedLinear(case.layout, case.strategies, len(packed.buffer), bias)
    module.packed = torch.from_numpy(packed.buffer)
    if module.bias is not None:
        module.bias.data.copy_(torch.arange(case.layout.rows) + 1)
    return module


def embedding(case: Case) -> PackedEmbedding:
    packed = pack(case)
    module = PackedEmbedding(case.layout, case.strategies, len(packed.buffer))
    module.packed = torch.from_numpy(packed.buffer)
    return module


def some_case(
    rows: int = 48,
    columns: int = 160,
    *,
    kind: Kind = "linear",
    per_weight: bool = False,
    half: bool = True,
    seed: int = 0,
    levels: Levels = "uniform",
) -> Case:
    """A matrix of mixed widths and groups of 64, columns in an order of their own."""
    granularity = "parameter" if per_weight else "tile"
    layout = cut("m", kind, (rows, columns), granularity, group_size=64, ordered=True, levels=levels)
    rng = np.random.default_rng(seed)
    strategies = (2, 3, 4, 8) if per_weight else (2, 3, 4, 5, 6, 8, 16)[: 7 if half else 6]
    widths = rng.choice(np.array(strategies, np.uint8), layout.agents)
    return Case(layout, strategies, widths, rounded(rng, layout, widths), np.random.default_rng(1).permutation(columns))
