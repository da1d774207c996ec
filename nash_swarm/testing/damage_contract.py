"""The contract of every damage estimator, as one function that a plug-in's own tests can call."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.damage.overflow import Overflow
from nash_swarm.damage.table import damage_table
from nash_swarm.names import Granularity
from nash_swarm.quantizers.formats.base import Kind, Layout
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.quantizers.formats.native.layout import HALF

STRATEGIES = (2, 3, 4, 5, 6, 8, HALF)
GRAINS: tuple[Granularity, ...] = ("layer", "block", "tile")
KINDS: tuple[Kind, ...] = ("linear", "conv1d", "embedding", "tied")
WEIGHTS = ("normal", "heavy tails", "constant", "zero", "tiny", "huge")
INPUTS = ("correlated", "dead columns", "one token", "zero")


class _Case(NamedTuple):
    """A matrix with the statistics that an estimator asked for."""

    weight: npt.NDArray[np.float32]
    statistics: Statistics
    layout: Layout
    plain: bool
    label: str

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{self.label}: {message}")


def check_damage(estimator: DamageEstimator, *, examples: int = 50, seed: int = 0) -> None:
    """Hold `estimator` to the contract on random matrices and statistics, among them degenerate ones.

    The sensitivity has the shapes, types and column order that the matrix and `orders` ask for and is finite and not
    negative; so is the damage made of it. 16 bits cost nothing, and so does rounding a matrix of zeros; averaged over
    matrices, damage falls with every bit. The same call gives the same result and leaves its arguments alone. The total
    damage does not depend on the order of a matrix's outputs (not checked for estimators that observe gradients).
    Statistics that hold NaN are refused.

    Args:
        estimator: an instance, with the hyperparameters to test.
        examples: number of matrices.
        seed: of the matrices.

    Raises:
        AssertionError: a rule is broken; the message names it, and the matrix's number and kind.
    """
    rng = np.random.default_rng(seed)
    falls: list[npt.NDArray[np.float64]] = []
    for number in range(examples):
        case = _sample(rng, estimator, number, f"{type(estimator).__name__}, matrix {number} of seed {seed}")
        found = _check_sensitivity(estimator, case)
        damage = _damage(case, found)
        case.require(damage.shape == (case.layout.agents, len(STRATEGIES)), f"damage has the shape {damage.shape}")
        case.require(bool(np.isfinite(damage).all()), "damage is not finite")
        case.require(bool((damage >= 0).all()), "damage is negative")
        case.require(not damage[:, -1].any(), "16 bits have damage")
        nothing = case._replace(weight=np.zeros_like(case.weight))
        case.require(not _damage(nothing, estimator.checked(*nothing[:3])).any(), "a matrix of zeros has damage")
        total = damage.sum(axis=0, dtype=np.float64)
        if case.plain and total[0]:
            falls.append(total / total[0])
        _check_row_order(estimator, case, found, rng)
        _check_refusals(estimator, case)
    if falls:
        mean = np.mean(falls, axis=0)
        if not (np.diff(mean) <= 0).all():
            told = ", ".join(f"{bits}: {share:.3g}" for bits, share in zip(STRATEGIES, mean, strict=True))
            raise AssertionError(f"{type(estimator).__name__}: mean damage by bits, as shares, rises: {told}")


def _check_sensitivity(estimator: DamageEstimator, case: _Case) -> Sensitivity:
    weight, statistics = case.weight.copy(), copy.deepcopy(case.statistics)
    found, again = estimator.checked(*case[:3]), estimator.checked(*case[:3])
    for name in ("rows", "columns", "order"):
        case.require(np.array_equal(getattr(found, name), getattr(again, name)), f"the same call gave other {name}")
    for part in (found.rows, found.columns):
        case.require(bool(np.isfinite(part).all()), "the sensitivity is not finite")
        case.require(bool((part >= 0).all()), "the sensitivity is negative")
    case.require(np.array_equal(weight, case.weight), "the weights were changed")
    case.require(_equal(statistics, case.statistics), "the statistics were changed")
    return found


def _check_row_order(estimator: DamageEstimator, case: _Case, found: Sensitivity, rng: np.random.Generator) -> None:
    """The rows of a multiplying matrix are its outputs, which have no order."""
    if case.layout.kind in ("embedding", "tied") or any(one.of == "gradients" for one in estimator.observers):
        return
    moved = rng.permutation(case.layout.rows)
    known = case.statistics
    other = replace(known)
    for part in ("outputs", "projected"):
        if (values := getattr(known, part)) is not None:
            setattr(other, part, values[torch.from_numpy(moved)])
    weight = np.ascontiguousarray(case.weight[moved])
    after = estimator.checked(weight, other, case.layout)
    same = np.allclose(found.loss_of_all(case.weight), after.loss_of_all(weight), rtol=1e-4)
    case.require(same, "outputs in another order have another damage")


def _check_refusals(estimator: DamageEstimator, case: _Case) -> None:
    for part in fields(Statistics):
        values = getattr(case.statistics, part.name)
        if not isinstance(values, torch.Tensor) or part.name == "lookups":
            continue
        broken = replace(case.statistics)
        setattr(broken, part.name, torch.full_like(values, torch.nan))
        try:
            estimator.checked(case.weight, broken, case.layout)
        except Overflow:
            continue
        case.require(False, f"NaN in {part.name} did not raise Overflow")


def _damage(case: _Case, sensitivity: Sensitivity) -> npt.NDArray[np.float32]:
    return damage_table(case.weight, sensitivity, case.layout, STRATEGIES)


def _sample(rng: np.random.Generator, estimator: DamageEstimator, number: int, label: str) -> _Case:
    """A random matrix; the kinds of weights and inputs take turns, the plain ones every second time."""
    plain = number % 2 == 0
    kind = KINDS[number // 2 % len(KINDS)]
    weights = WEIGHTS[0] if plain else WEIGHTS[int(rng.integers(len(WEIGHTS)))]
    inputs = INPUTS[0] if plain else INPUTS[int(rng.integers(len(INPUTS)))]
    rows, columns = int(rng.integers(1, 70)), int(rng.integers(1, 100))
    layout = cut(
        "model.layers.0.matrix", kind, (rows, columns), granularity=GRAINS[int(rng.integers(len(GRAINS)))],
        group_size=int(rng.choice([32, 64])), ordered=estimator.orders(kind),
    )  # fmt: skip
    weight = rng.normal(size=(rows, columns))
    if weights == "heavy tails":
        weight = rng.standard_t(2, size=(rows, columns))
    scale = {"constant": 0.0, "zero": 0.0, "tiny": 1e-20, "huge": 1e10}.get(weights, 0.05)
    weight = weight * scale + (0.1 if weights == "constant" else 0)
    statistics = _statistics(rng, estimator, kind, (rows, columns), inputs)
    told = f"{label} ({kind}, {rows} x {columns}, weights {weights}, inputs {inputs})"
    return _Case(weight.astype(np.float32), statistics, layout, plain, told)


def _statistics(
    rng: np.random.Generator, estimator: DamageEstimator, kind: Kind, shape: tuple[int, int], inputs: str
) -> Statistics:
    """Statistics of random inputs and gradients: those that walks through a model would fill for this estimator."""
    found = Statistics()
    if estimator.needs == "weights":
        return found
    rows, columns = shape
    sequences, tokens = (1, 1) if inputs == "one token" else (3, 40)
    mixed = rng.normal(size=(sequences, tokens, columns)) @ (np.eye(columns) + rng.normal(size=(columns, columns)) / 9)
    if inputs == "dead columns":
        mixed[..., rng.random(columns) < 0.4] = 0
    x = torch.from_numpy((mixed * (inputs != "zero")).astype(np.float32))
    gradients = torch.from_numpy(rng.normal(size=(sequences, tokens, rows)).astype(np.float32) * np.float32(1e-3))
    backward = estimator.needs == "gradients"
    if kind != "embedding":
        found.add_inputs(x)
        if backward:
            found.add_output_gradients(gradients)
        for observer in estimator.observers:
            found.observe(observer, x if observer.of == "inputs" else gradients)
        if backward and estimator.projects:
            found.factor = estimator.factor(found)
            found.add_projected(gradients, found.project(x))
    if kind in ("embedding", "tied"):
        found.add_lookups(torch.from_numpy(rng.integers(0, rows, (sequences, tokens))), rows)
        if backward:
            found.add_lookup_gradients(x * 1e-3)
    return found


def _equal(one: Statistics, other: Statistics) -> bool:
    for part in fields(Statistics):
        ours, theirs = getattr(one, part.name), getattr(other, part.name)
        if part.name == "observed":
            same = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        elif isinstance(ours, torch.Tensor):
            same = torch.equal(ours, theirs)
        else:
            same = np.array_equal(ours, theirs)
        if not same:
            return False
    return True
