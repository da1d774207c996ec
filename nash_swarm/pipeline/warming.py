"""Every kernel that packing and running models needs, compiled ahead of time by using it once on a tiny matrix."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch

from nash_swarm.names import Granularity, Mode
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.rounding.rtn import RoundToNearest
from nash_swarm.quantizers.runtime.cpu import first_use
from nash_swarm.quantizers.runtime.cpu.compiled import kernel
from nash_swarm.quantizers.runtime.cpu.fused import decoder_stack, layer_products, single_token
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.quantizers.runtime.cpu.workers import openmp
from nash_swarm.quantizers.runtime.modules import PackedEmbedding, PackedLinear

_ROWS, _COLUMNS, _WIDTH = 32, 64, 4


@dataclass(frozen=True)
class Warmed:
    """What `warm_up` did.

    Attributes:
        seconds: by kind of kernel; next to nothing where it had been compiled before.
        compiled: functions that were compiled, not read from the cache.
        path: the instructions that the products are made of, see `cpu.simd.paths`.
        cache: folder of the compiled products; None if they can be kept nowhere.
    """

    seconds: dict[str, float]
    compiled: tuple[str, ...]
    path: str
    cache: str | None


def warm_up() -> Warmed:
    """Compile what is not compiled yet, for this CPU and these versions of Numba and nash-swarm."""
    before = len(first_use.listener.compiled)
    seconds = {"rounding": _timed(lambda: _packed("tile"))}
    layer, table = _linear("tile"), _table("tile")
    x, index = torch.ones(2, _COLUMNS), torch.arange(3)
    for mode in get_args(Mode):
        layer.activations = mode
        seconds[f"products, activations {mode}"] = _timed(lambda: layer(x))
    seconds["between the products"] = _timed(
        lambda: (single_token.kernels(), decoder_stack.kernel(), layer_products.products())
    )
    seconds["threads"] = _timed(openmp.functions)
    seconds["rows"] = _timed(lambda: table(index))
    seconds["unpacking"] = _timed(layer.dense)
    seconds["parameter granularity"] = _timed(lambda: (_linear("parameter")(x), _table("parameter")(index)))
    chosen = paths.choose()
    return Warmed(
        seconds,
        tuple(first_use.listener.compiled[before:]),
        paths.NAMES[chosen],
        kernel(chosen, False).stats.cache_path,  # type: ignore[attr-defined]
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _packed(granularity: Granularity) -> PackedTensor:
    layout = cut("warm-up", "linear", (_ROWS, _COLUMNS), granularity)
    weight = np.random.default_rng(0).standard_normal((_ROWS, _COLUMNS)).astype(np.float32)
    widths = np.full(layout.agents, _WIDTH, np.uint8)
    rounded = RoundToNearest().round(weight, layout.expand(widths), layout)
    return layout.format.pack(rounded, widths, layout, None, (_WIDTH,))


def _linear(granularity: Granularity) -> PackedLinear:
    packed = _packed(granularity)
    module = PackedLinear(packed.layout, (_WIDTH,), len(packed.buffer), bias=False)
    module.packed = torch.from_numpy(packed.buffer)
    return module


def _table(granularity: Granularity) -> PackedEmbedding:
    packed = _packed(granularity)
    module = PackedEmbedding(packed.layout, (_WIDTH,), len(packed.buffer))
    module.packed = torch.from_numpy(packed.buffer)
    return module
