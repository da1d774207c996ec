"""How the damage of neighbours combines: coupling vectors whose inner products are the cross terms of the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments
from nash_swarm.damage.neighbourhood import Neighbourhood, neighbourhood
from nash_swarm.damage.sequence_deltas import sequence_deltas
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling import Coupling

_REACHES = (0.5, 2.0, 8.0, float("inf"))
_PROFILES = 256
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shrinkage:
    """How far cross terms are believed, chosen on sequences that the vectors were not made from.

    Attributes:
        reach: blocks over which coupling falls by a factor e.
        strength: factor on the cross terms, in [0, 1]; 0 is no coupling.
        explained: share of the variance of the held-out second-order damage that separable damage leaves over and the
            coupled one explains; negative if coupling makes it worse.
    """

    reach: float
    strength: float
    explained: float


def couple(
    model: Any, game: BitGame, *, rank: int = 16, seed: int = 0, quiet: bool = False
) -> tuple[BitGame, Shrinkage]:
    """The game with coupling measured on its own calibration text.

    The Fisher information of the summed loss gives the second-order damage of a profile as the mean over sequences of
    (sum_i delta_i)^2 / 2, with delta_i = <dL_seq/dW_i, Q(W_i) - W_i>: the cross terms of two agents are the inner
    product of their delta vectors, positive semi-definite by construction. More sequences than `rank` are sketched by
    random signs (Achlioptas 2003). Directions come from the deltas; lengths from the game's damage, because
    error-compensated rounding shortens the errors: |d_i(s)|^2 = 2 c_i(s).

    Args:
        model: the model the game was measured on.
        game: a measured game; its coupling, if any, is replaced.
        rank: length of the vectors.
        seed: of the sketch and of the random profiles.
        quiet: no progress bar.

    Raises:
        UsageError: see `sequence_deltas`.
    """
    arguments.original(model)
    arguments.instance("the game", game, BitGame, "from measure or load_game")
    arguments.whole("rank", rank, 1)
    rng = np.random.default_rng(arguments.whole("seed", seed, 0))
    deltas = sequence_deltas(model, game, quiet=quiet)
    near = neighbourhood(game.tensors)
    shrinkage = choose_shrinkage(game, deltas, near, rng)
    vectors = scaled_to_damage(game, _sketched(deltas, rank, rng))
    graph = near.graph(shrinkage.reach, shrinkage.strength)
    facts = {"reach": str(shrinkage.reach), "strength": shrinkage.strength, "explained": shrinkage.explained}
    provenance = {**game.provenance, "coupling": {"rank": vectors.shape[-1], **facts}}
    return replace(game, coupling=Coupling(vectors, near.community, graph), provenance=provenance), shrinkage


def check_coupled(coupling: bool, granularity: str) -> None:
    """Refuse to couple single weights, before anything is measured.

    Raises:
        UsageError: `coupling` is asked for at `parameter` granularity.
    """
    if coupling and granularity == "parameter":
        raise UsageError("coupling is of layer, block and tile agents, not of single weights")


def choose_shrinkage(game: BitGame, deltas: Floats, near: Neighbourhood, rng: np.random.Generator) -> Shrinkage:
    """Reach and strength of the coupling that best predict held-out sequences.

    Vectors made from the even sequences predict, for random profiles, the second-order damage on the odd ones. The
    strength is the least-squares factor on the cross terms beside a free factor on the separable part.

    Args:
        game: the game.
        deltas: float32 (windows, agents, strategies).
        near: communities and their positions.
        rng: draws the profiles.
    """
    if len(deltas) < 4:
        return Shrinkage(float("inf"), 0.0, 0.0)
    seen, held_out = np.moveaxis(deltas[::2], 0, -1), np.moveaxis(deltas[1::2], 0, -1)
    count = len(near.position)
    truth, own = np.empty(_PROFILES), np.empty(_PROFILES)
    cross = np.empty((_PROFILES, len(_REACHES)))
    graphs = [near.graph(reach, 1.0) for reach in _REACHES]
    for place in range(_PROFILES):
        choices = random_profile(game, rng)
        rows = np.arange(game.agents)
        d = seen[rows, choices].astype(np.float64)
        truth[place] = 0.5 * np.square(held_out[rows, choices].sum(0, dtype=np.float64)).mean()
        sums = np.zeros((count, d.shape[1]))
        np.add.at(sums, near.community, d)
        squares = np.square(d).sum(1)
        own[place] = 0.5 * squares.sum() / d.shape[1]
        gram = sums @ sums.T
        for which, graph in enumerate(graphs):
            selves = (graph.diagonal()[near.community] * squares).sum()
            cross[place, which] = 0.5 * ((graph * gram).sum() - selves) / d.shape[1]
    plain = _residual(own[:, None], truth)[1]
    best = Shrinkage(float("inf"), 0.0, 0.0)
    for which, reach in enumerate(_REACHES):
        factors, left = _residual(np.stack([own, cross[:, which]], axis=1), truth)
        explained = 1.0 - left / plain if plain > 0 else 0.0
        strength = float(np.clip(factors[1] / factors[0], 0.0, 1.0)) if factors[0] > 0 else 1.0
        if strength > 0 and explained > best.explained:
            best = Shrinkage(reach, strength, float(explained))
    return best


def random_profile(game: BitGame, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random strategy indices around a random mean width: uint8 (agents,)."""
    centre = rng.uniform(0, len(game.strategies) - 1)
    spread = rng.uniform(0.3, 1.5)
    drawn = np.rint(rng.normal(centre, spread, game.agents))
    return np.clip(drawn, 0, len(game.strategies) - 1).astype(np.uint8)


def _residual(
    columns: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Least squares in relative terms: factors and mean squared residual, profiles of all sizes counting alike."""
    weight = 1.0 / np.maximum(truth, 1e-30)
    factors, *_ = np.linalg.lstsq(columns * weight[:, None], np.ones(len(truth)), rcond=None)
    return np.asarray(factors, np.float64), float(np.square(columns * weight[:, None] @ factors - 1.0).mean())


def _sketched(deltas: Floats, rank: int, rng: np.random.Generator) -> Floats:
    """(windows, agents, strategies) to (agents, strategies, rank)."""
    if len(deltas) > rank:
        signs = rng.choice(np.array([-1.0, 1.0], np.float32), (rank, len(deltas))) / np.float32(np.sqrt(rank))
        deltas = np.tensordot(signs, deltas, axes=1).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(deltas, 0, -1))


def scaled_to_damage(game: BitGame, vectors: Floats) -> Floats:
    """Vectors (agents, strategies, rank) with the squared length of twice the agent's own damage."""
    lengths = np.linalg.norm(vectors, axis=-1)
    factor = np.sqrt(2.0 * game.damage) / np.maximum(lengths, 1e-30)
    return (vectors * factor[..., None]).astype(np.float32)
