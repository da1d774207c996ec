"""Small games of every kind that has ever broken an allocator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.coupling import Coupling
from nash_swarm.game.rules import VLLM_FUSION, Rules
from nash_swarm.names import GRANULARITIES
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.layout import SUPPORTED_WIDTHS, TensorLayout

KINDS = ("convex", "ties", "zero", "huge range", "rising and falling", "identical agents")
"""What the damage looks like."""
_CHUNK = 1 << 16
"""Agents whose vectors are made at a time."""

_LEAVES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def sample_game(rng: np.random.Generator, *, most_agents: int = 12) -> BitGame:
    """A random game: 1 to `most_agents` agents, 1 to 7 strategies, damage of one of `KINDS`.

    Memory is the same for all agents (a broadcast view), proportional to a few sizes, or irregular with equal steps.
    """
    agents = 1 if rng.random() < 0.1 else int(rng.integers(1, most_agents + 1))
    count = 1 if rng.random() < 0.1 else int(rng.integers(2, len(SUPPORTED_WIDTHS) + 1))
    strategies = tuple(sorted(int(width) for width in rng.choice(SUPPORTED_WIDTHS, count, replace=False)))
    kind = KINDS[rng.integers(len(KINDS))]
    return BitGame(
        strategies,
        _damage(rng, kind, agents, strategies),
        _memory(rng, agents, strategies),
        fixed_bits=int(rng.integers(0, 100)),
        parameters=agents * 64,
        provenance={"kind": kind},
    )


def sample_model_game(rng: np.random.Generator) -> BitGame:
    """A random game with the tensors of a tiny transformer at a random granularity; half of them are coupled.

    The head is tied.
    """
    granularity = GRANULARITIES[rng.integers(3)]
    strategies = tuple(sorted(int(width) for width in rng.choice(SUPPORTED_WIDTHS, 4, replace=False)))
    tensors: list[TensorLayout] = []
    for name, rows in [("embed_tokens", 64), *((f"layers.{layer}.{leaf}", 32) for layer in (0, 1) for leaf in _LEAVES)]:
        start = tensors[-1].span.stop if tensors else 0
        kind: Kind = "linear" if tensors else "tied"
        tensors.append(cut(f"model.{name}", kind, (rows, 64), granularity, group_size=32, start=start))
    damage = _damage(rng, "convex", tensors[-1].span.stop, strategies)
    memory = np.concatenate([tensor.memory(strategies) for tensor in tensors])
    game = BitGame(
        strategies, damage, memory, 500, 64 * 64 + 12 * 64 * 32, tuple(tensors), provenance={"kind": granularity}
    )
    if rng.random() < 0.5:
        return game
    # siblings are one community
    parts = [tensor.name.rpartition(".")[0] for tensor in tensors]
    community = np.repeat(np.unique(parts, return_inverse=True)[1], [tensor.agents for tensor in tensors])
    return couple(rng, game, communities=len(set(parts)), rank=3, community=community.astype(np.int32))


def couple(
    rng: np.random.Generator,
    game: BitGame,
    *,
    communities: int,
    rank: int,
    strength: float = 1.0,
    likeness: float = 0.5,
    community: npt.NDArray[np.int32] | None = None,
) -> BitGame:
    """`game` with a random coupling of the kind that measured ones have.

    An agent's vectors point the same way whatever it plays, as long as its own damage explains (`strength` of it, as
    interaction with itself); ways are alike within a community as far as `likeness` says. Communities form a chain
    along which the coupling decays; agents belong to random ones, in agent order, unless `community` says to which.
    """
    if community is None:
        community = np.sort(rng.integers(0, communities, game.agents)).astype(np.int32)
    centres = likeness * rng.normal(size=(communities, rank))
    vectors = np.empty((*game.damage.shape, rank), np.float32)
    for start in range(0, game.agents, _CHUNK):  # no temporary as large as the vectors
        part = slice(start, start + _CHUNK)
        ways = centres[community[part]] + rng.normal(size=(len(community[part]), rank))
        ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-30)
        vectors[part] = ways[:, None, :] * np.sqrt(2 * strength * game.damage[part].astype(np.float64))[:, :, None]
    steps = np.arange(communities)
    graph = rng.uniform(0.2, 0.9) ** np.abs(steps[:, None] - steps)
    return replace(game, coupling=Coupling(vectors, community, graph))


def sample_coupled_game(rng: np.random.Generator, *, most_agents: int = 8) -> BitGame:
    """A random game of 1 to `most_agents` agents and up to 4 strategies whose agents are coupled."""
    while (game := sample_game(rng, most_agents=most_agents)).provenance["kind"] == "huge range":
        pass
    if len(game.strategies) > 4:
        keep = np.sort(rng.choice(len(game.strategies), 4, replace=False))
        game = replace(
            game,
            strategies=tuple(game.strategies[s] for s in keep),
            damage=np.ascontiguousarray(game.damage[:, keep]),
            memory=np.ascontiguousarray(game.memory[:, keep]),
        )
    communities, rank = (int(size) for size in rng.integers(1, 5, 2))
    if rng.random() < 0.7:
        strength, likeness = rng.uniform(0, 1), rng.uniform(0, 3)
        return couple(rng, game, communities=communities, rank=rank, strength=strength, likeness=likeness)
    # any vectors at all, also ones that an agent's own damage does not explain
    vectors = rng.normal(0, np.sqrt(game.damage.mean()), (*game.damage.shape, rank)).astype(np.float32)
    factor = rng.normal(size=(communities, communities))
    community = rng.integers(0, communities, game.agents).astype(np.int32)
    return replace(game, coupling=Coupling(vectors, community, factor @ factor.T))


def sample_rules(rng: np.random.Generator, game: BitGame) -> Rules:
    """Random rules for a game of `sample_model_game`, always satisfiable."""
    pinned = int(rng.choice(game.strategies))
    forbidden = tuple(int(width) for width in rng.choice(game.strategies, 2, replace=False))
    return Rules(
        keep={"lm_head": pinned} if rng.random() < 0.7 else {},
        forbid={"layers.1.*": forbidden} if rng.random() < 0.7 else {},
        fuse=VLLM_FUSION if rng.random() < 0.7 else (),
    )


def sample_budget(rng: np.random.Generator, game: BitGame) -> Budget:
    """A feasible budget for `game`: somewhere between its smallest and a little more than its largest size."""
    smallest, largest = game.smallest_bits(), game.largest_bits()
    total = rng.choice(
        [smallest, largest, largest + 7, int(rng.integers(smallest, largest + 1))], p=[0.1, 0.05, 0.05, 0.8]
    )
    return Budget(int(total), f"{total} bits")


def _damage(rng: np.random.Generator, kind: str, agents: int, strategies: tuple[int, ...]) -> npt.NDArray[np.float32]:
    widths = np.array(strategies, np.float64)
    noise = rng.random((agents, len(strategies)))
    scale = rng.lognormal(0, 2, (agents, 1))
    match kind:
        case "convex":
            damage = scale * 4.0**-widths * (0.5 + noise)
        case "ties":
            damage = np.round(noise * 3)
        case "zero":
            damage = np.where(rng.random((agents, 1)) < 0.5, 0.0, -np.sort(-noise, axis=1))
        case "huge range":
            damage = -np.sort(-noise, axis=1) * 10.0 ** rng.integers(-25, 25, (agents, 1))
        case "rising and falling":
            damage = scale * noise
        case _:
            damage = np.broadcast_to(scale[0] * -np.sort(-noise[0]), noise.shape)
    return np.ascontiguousarray(damage, dtype=np.float32)


def _memory(rng: np.random.Generator, agents: int, strategies: tuple[int, ...]) -> npt.NDArray[np.int64]:
    widths = np.array(strategies, np.int64)
    match rng.integers(3):
        case 0:
            return np.broadcast_to(widths, (agents, len(widths)))
        case 1:
            return widths * rng.choice([16, 48, 512], (agents, 1)) + 16
        case _:
            return 1 + np.cumsum(rng.integers(0, 40, (agents, len(widths))), axis=1)
