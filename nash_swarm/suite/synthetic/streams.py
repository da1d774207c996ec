"""Damage made up from a seed: the same for an agent whenever it is asked for, so that no table need be kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.errors import UsageError
from nash_swarm.game.streaming import StreamedGame
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.layout import TensorLayout

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_DEVIATION = math.sqrt(3.0)
"""Standard deviations in which the sum of four uniform numbers is counted."""


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Damage that falls about fourfold a bit and differs by orders of magnitude between agents.

    The damage of agent i of part t with width b is exp(location_t + spread * z_i) * 4^-b * u_ib. u is uniform in
    [0.7, 1.3], in 1024 steps, and z the sum of four uniform numbers, about a standard normal. Both are counters i put
    through a hash (G. Steele, D. Lea & C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), so any
    chunk can be made at any time.

    Attributes:
        strategies: bit-widths.
        starts: int64 (parts + 1,), the first agent of each part, and the number of agents.
        locations: float64 (parts,).
        spread: of the logarithm of damage within a part.
        seed: of everything.
    """

    strategies: tuple[int, ...]
    starts: npt.NDArray[np.int64]
    locations: npt.NDArray[np.float64]
    spread: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < len(self.strategies) <= 6:
            raise UsageError("synthetic damage is made for one to six strategies")
        if self.starts.shape != (len(self.locations) + 1,) or self.starts[0] or (np.diff(self.starts) < 0).any():
            raise UsageError("parts must begin at agent 0 and be in order, one location each")

    @classmethod
    def even(cls, agents: int, strategies: tuple[int, ...], seed: int = 0) -> Synthetic:
        """All agents alike."""
        return cls(strategies, np.array([0, agents]), np.zeros(1), seed=seed)

    @property
    def shape(self) -> tuple[int, int]:
        """Agents and strategies."""
        return int(self.starts[-1]), len(self.strategies)

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """See `streaming.Source.read`."""
        out = np.empty((stop - start, len(self.strategies)), np.float32)
        falls = 4.0 ** -np.array(self.strategies, np.float64)
        part = int(np.searchsorted(self.starts, start, side="right")) - 1
        _make(self.starts, self.locations, self.spread, np.uint64(self.seed), falls, part, start, out)
        return out


def transformer_tiles(
    strategies: tuple[int, ...],
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vocabulary: int,
    group_size: int = 64,
    seed: int = 0,
) -> tuple[StreamedGame, tuple[TensorLayout, ...]]:
    """The tile agents of a decoder-only transformer with gated MLPs and an untied head, by its shapes alone.

    Sizes on disk are exact for its matrices; norms and file headers are left out. Damage is made up, on a scale of its
    own for each matrix.

    Raises:
        UsageError: tiles would differ in size, because a dimension is no multiple of a tile's.
    """
    head = hidden // heads
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv_heads * head, hidden),
        "self_attn.v_proj": (kv_heads * head, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    shapes = {"model.embed_tokens": (vocabulary, hidden)}
    shapes |= {f"model.layers.{k}.{name}": shape for k in range(layers) for name, shape in block.items()}
    shapes["lm_head"] = (vocabulary, hidden)
    tensors = _cut(shapes, group_size)
    if any(tensor.rows % 16 or tensor.columns % group_size for tensor in tensors):
        raise UsageError(f"every dimension must be a multiple of 16 rows and {group_size} columns")
    starts = np.array([tensor.start for tensor in tensors] + [tensors[-1].span.stop])
    locations = np.random.default_rng(seed).normal(0, 1, len(tensors))
    memory = 8 * np.array([int(tensors[0].tile_bytes(np.array(width))[0]) for width in strategies])
    game = StreamedGame(
        strategies,
        Synthetic(strategies, starts, locations, seed=seed),
        memory[None],
        8 * sum(tensor.fixed_bytes(len(strategies)) for tensor in tensors),
        sum(tensor.weights for tensor in tensors),
    )
    return game, tensors


def _cut(shapes: dict[str, tuple[int, int]], group_size: int) -> tuple[TensorLayout, ...]:
    tensors: list[TensorLayout] = []
    for name, shape in shapes.items():
        start = tensors[-1].span.stop if tensors else 0
        kind: Kind = "embedding" if name.endswith("embed_tokens") else "linear"
        tensors.append(cut(name, kind, shape, "tile", group_size=group_size, start=start))
    return tuple(tensors)


@njit(nogil=True, cache=True)
def _mix(z):  # type: ignore[no-untyped-def]
    """The finalizer of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _make(starts, locations, spread, seed, falls, part, first, out):  # type: ignore[no-untyped-def]
    key = _mix(seed + _GOLDEN)
    for k in range(len(out)):
        i = first + k
        while i >= starts[part + 1]:
            part += 1
        one = _mix(key + np.uint64(2 * i + 1) * _GOLDEN)
        other = _mix(key + np.uint64(2 * i + 2) * _GOLDEN)
        total = np.int64(0)
        for quarter in range(4):
            total += np.int64((one >> np.uint64(16 * quarter)) & np.uint64(0xFFFF))
        normal = (total / 65535.0 - 2.0) * _DEVIATION
        scale = math.exp(locations[part] + spread * normal)
        for s in range(len(falls)):
            share = np.int64((other >> np.uint64(10 * s)) & np.uint64(0x3FF)) / 1023.0
            out[k, s] = scale * falls[s] * (0.7 + 0.6 * share)
