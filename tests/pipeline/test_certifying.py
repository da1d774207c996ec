"""Certificates are checked from the game alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.game import Allocation, BitGame
from nash_swarm.game.rules import Rules
from nash_swarm.pipeline.certifying import check_certificate
from nash_swarm.quantizers.formats.known import cut


def _game(seed: int = 0) -> BitGame:
    rng = np.random.default_rng(seed)
    names = ("a.q_proj", "a.k_proj", "a.down_proj")
    tensors, start = [], 0
    for name in names:
        tensors.append(cut(name, "linear", (48, 256), "block", start=start))
        start += tensors[-1].agents
    strategies = (2, 3, 4, 8)
    damage = -np.sort(-rng.gamma(0.5, size=(start, 4)), axis=1)
    memory = np.concatenate([tensor.memory(strategies) for tensor in tensors])
    return BitGame(strategies, damage.astype(np.float32), memory, 800, 3 * 48 * 256, tuple(tensors))


@pytest.mark.parametrize("rules", [None, Rules(keep={"down_proj": 4}), Rules(fuse=(("q_proj", "k_proj"),))])
@pytest.mark.parametrize("solver", ["uniform", "lagrangian", "nash"])
def test_every_solvers_certificate_holds(solver: str, rules: Rules | None) -> None:
    game = _game()
    check_certificate(game, ns.solve(game, bits=4.0, solver=solver, rules=rules))


def _raised(allocation: Allocation, **changes: float) -> Allocation:
    return replace(allocation, certificate=replace(allocation.certificate, **changes))


def test_a_tampered_certificate_is_refused() -> None:
    game = _game()
    allocation = ns.solve(game, bits=4.0, solver="uniform")
    proof = allocation.certificate
    for changes in (
        {"lower_bound": proof.lower_bound * 1.01},
        {"predicted_damage": proof.predicted_damage * 0.99},
        {"unilateral_regret": 0.0},
        {"exchange_regret": 0.0},
        {"used_bits": proof.used_bits - 8},
        {"budget_bits": proof.budget_bits + 8},
    ):
        with pytest.raises(DataError, match="does not hold"):
            check_certificate(game, _raised(allocation, **changes))


def test_tampered_choices_and_broken_rules_are_refused() -> None:
    game = _game()
    allocation = ns.solve(game, bits=4.0, solver="nash", rules=Rules(keep={"down_proj": 4}))
    choices = allocation.choices.copy()
    choices[-1] = 0
    with pytest.raises(DataError, match="breaks its own rules"):
        check_certificate(game, replace(allocation, choices=choices))
    free = ns.solve(game, bits=4.0, solver="nash")
    other = free.choices.copy()
    other[int(np.argmax(other))] -= 1
    with pytest.raises(DataError, match="does not hold"):
        check_certificate(game, replace(free, choices=other))


def test_an_allocation_of_another_game_is_refused() -> None:
    allocation = ns.solve(_game(), bits=4.0, solver="nash")
    with pytest.raises(DataError, match="does not hold"):
        check_certificate(_game(seed=1), allocation)
    fewer = replace(_game(), tensors=())
    with pytest.raises(DataError, match="another game"):
        check_certificate(fewer, allocation)
