"""Solving for what packing really does: candidates are packed, tried on text the game has not seen; the best wins."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm import registry
from nash_swarm.calibration.text import Text, choose_windows, sample_windows, warn_left_out
from nash_swarm.damage.coupling import scaled_to_damage
from nash_swarm.errors import UsageError
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.budget import Budget
from nash_swarm.game.coupling import Coupling
from nash_swarm.game.rules import Rules
from nash_swarm.game.stencil import Stencil
from nash_swarm.models.architectures import prepare
from nash_swarm.models.offload import require_in_memory
from nash_swarm.models.walk import find_matrices
from nash_swarm.names import DEFAULT_QUANTIZER
from nash_swarm.pipeline.measuring import measure
from nash_swarm.pipeline.packing import pack
from nash_swarm.pipeline.solving import allocate
from nash_swarm.quantizers.formats.base import layouts_of
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.runtime.modules import PackedWeight
from nash_swarm.solvers.base import Solver

BASELINES = ("uniform", "quantile")
"""What the winner is never worse than, at the same bytes."""
_TRIAL_WINDOWS = 8


@dataclass(frozen=True, eq=False)
class Candidate:
    """One allocation, packed and tried.

    Attributes:
        name: solver, and the round if the damage had been measured again.
        allocation: what was packed.
        packed: the packed model.
        trial: how it does on calibration text held out from the game.
    """

    name: str
    allocation: Allocation
    packed: Any
    trial: Evaluation

    @property
    def kl(self) -> float:
        """KL to the original on the trial text, nats per token; 1 - cosine for an encoder."""
        return self.trial.divergence


def trial_windows(
    model: Any,
    game: BitGame,
    text: Text,
    tokenizer: Any,
    rng: np.random.Generator,
    *,
    rounding: Calibration | None = None,
) -> npt.NDArray[np.int32]:
    """Windows of the calibration part of a text that nothing was measured on or rounded with, int32 (windows, length).

    If all were used, used ones are returned: a trial on seen text is better than none.

    Warns:
        LeftOutWarning: they are fewer than eight, or were used, see `trial_shortage`.
    """
    used = _used(game, rounding)
    fresh = sample_windows(
        text, tokenizer, rng, count=_TRIAL_WINDOWS, length=used.shape[1], part="calibration", model=model,
        apart_from=used,
    )  # fmt: skip
    found = fresh if len(fresh) else choose_windows(used, _TRIAL_WINDOWS, rng)
    warn_left_out(trial_shortage(found, game, text, rounding=rounding))
    return found


def trial_shortage(
    trial: npt.NDArray[np.int32], game: BitGame, text: Text, *, rounding: Calibration | None = None
) -> tuple[str, ...]:
    """What windows (windows, length) to try candidates on lack, a sentence each."""
    seen = {window.tobytes() for window in _used(game, rounding)}
    if len(trial) and trial[0].tobytes() in seen:
        return (f"the text {text.source} is short: candidates are tried on windows that were calibrated on",)
    if len(trial) < _TRIAL_WINDOWS:
        told = f"{len(trial)} windows to try candidates on instead of {_TRIAL_WINDOWS}"
        return (f"the text {text.source} is short: {told}",)
    return ()


def _used(game: BitGame, rounding: Calibration | None) -> npt.NDArray[np.int32]:
    assert game.calibration is not None
    used = game.calibration.tokens
    return used if rounding is None else np.concatenate([used, rounding.tokens])


def play(
    model: Any,
    game: BitGame,
    budget: Budget,
    *,
    solver: Solver,
    quantizer: str | Quantizer = DEFAULT_QUANTIZER,
    calibration: Calibration | None = None,
    propagation: float = 0.0,
    rounds: int = 0,
    baselines: Iterable[str] = BASELINES,
    trial: npt.NDArray[np.int32],
    rules: Rules | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> list[Candidate]:
    """Pack and try the solver's allocation, those of further rounds, and the baselines'; the best first.

    A round measures the damage again at the best packed model of the solver so far (a best response to what the other
    agents really do), solves and packs again. Rounds end early when the allocation repeats itself or the trial KL does
    not fall.

    Args:
        model: the original model.
        game: measured on it.
        budget: the same for every candidate.
        solver: who allocates.
        quantizer, propagation: how candidates are rounded, see `pack`.
        calibration: what they are rounded with; the game's if not given.
        rounds: measurements at the quantized point.
        baselines: solvers that the winner is compared with.
        trial: token ids (windows, length) on which candidates are compared by their KL to the original.
        rules: see `solve`.
        seed: of the solvers.
        quiet: no progress bars.

    Raises:
        BudgetError, UsageError, DataError: see `solve` and `pack`.
    """

    def tried(name: str, who: Solver, played: BitGame) -> Candidate:
        allocation = allocate(who, played, budget, seed=seed, rules=rules, quiet=quiet)
        if calibration is not None:
            allocation = replace(allocation, calibration=calibration)
        packed = pack(model, allocation, quantizer=quantizer, propagation=propagation, quiet=quiet)
        return Candidate(name, allocation, packed, evaluate({"": packed}, trial, reference=model, quiet=quiet)[""])

    own = [tried(solver.name, solver, game)]
    for number in range(1, rounds + 1):
        best = min(own, key=lambda candidate: candidate.kl)
        again = measure_at(model, best.packed, game, quiet=quiet)
        latest = tried(f"{solver.name}, round {number}", solver, again)
        stable = np.array_equal(latest.allocation.choices, best.allocation.choices)
        own.append(latest)
        if stable or latest.kl >= best.kl:
            break
    others = [tried(name, registry.create("solvers", name), game) for name in baselines if name != solver.name]
    return sorted([*own, *others], key=lambda candidate: candidate.kl)


def measure_at(model: Any, packed: Any, game: BitGame, *, quiet: bool = False) -> BitGame:
    """The game measured again with every gradient and activation taken at the packed model.

    What is rounded is still the original weights; only where the loss is looked at has moved. Column orders stay, and
    so agents are what they were. Coupling vectors keep their directions, with the lengths that the new damage gives
    them; a stencil is measured again.

    Args:
        model: the original model.
        packed: a packed model of it.
        game: the first measurement; says how to measure.
        quiet: no progress bar.

    Raises:
        UsageError: the game was measured without text.
    """
    if game.calibration is None:
        raise UsageError("rounds measure the damage again, which needs calibration text; use rounds=0")
    facts = game.provenance
    estimator = registry.create("damage", facts["damage"], **facts["damage_settings"])
    again = measure(
        model, tokens=game.calibration.tokens, point=dense_copy(model, packed), orders=game.permutations,
        damage=estimator,
        granularity=facts["granularity"], strategies=game.strategies, scope=facts["scope"],
        format=layouts_of(game.tensors)[0].format,
        coupling=isinstance(game.coupling, Stencil), seed=facts["seed"],
        name=facts["model"], quiet=quiet,
    )  # fmt: skip
    facts_now = {**facts, "measured_at_loss": again.provenance.get("calibration_loss")}
    again = replace(again, calibration=game.calibration, provenance=facts_now)
    if not isinstance(game.coupling, Coupling):
        return again
    vectors = scaled_to_damage(again, game.coupling.vectors)
    return replace(again, coupling=replace(game.coupling, vectors=vectors))


@torch.no_grad()
def dense_copy(model: Any, packed: Any) -> Any:
    """The original model with the packed model's weights, unpacked: for what needs dense modules.

    Raises:
        UsageError: its weights are on disk.
    """
    require_in_memory(model, "rounds")
    copied = copy.deepcopy(prepare(model))
    modules = {name: module for name, module in packed.named_modules() if isinstance(module, PackedWeight)}
    for matrix in find_matrices(copied):
        if matrix.name in modules:
            dense = modules[matrix.name].dense()
            matrix.parameter.copy_(dense.T if matrix.kind == "conv1d" else dense)
    state = packed.state_dict()
    for name, tensor in copied.state_dict().items():
        if name in state:
            tensor.copy_(state[name])
    return copied
