"""The baseline check: candidates are packed and tried on text that the game has not seen; the best is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import registry
from nash_swarm.calibration.text import Text, choose_windows, sample_windows, warn_left_out
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.budget import Budget
from nash_swarm.game.rules import Rules
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.pipeline.packing import round_model
from nash_swarm.pipeline.solving import allocate
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.solvers.base import Solver

BASELINES = ("uniform", "quantile")
"""What the winner is never worse than, at the same bytes."""
_TRIAL_WINDOWS = 8


@dataclass(frozen=True, eq=False)
class Candidate:
    """One allocation, packed and tried.

    Attributes:
        name: of the solver.
        allocation: what was packed.
        packed: the packed model; `finish` has yet to make it ready for generating.
        trial: how it does on calibration text held out from the game; `None` if it was not tried.
    """

    name: str
    allocation: Allocation
    packed: Any
    trial: Evaluation | None

    @property
    def kl(self) -> float:
        """KL to the original on the trial text, nats per token; 1 - cosine for an encoder."""
        return math.inf if self.trial is None else self.trial.divergence


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


def try_candidates(
    model: Any,
    game: BitGame,
    budget: Budget,
    *,
    solver: Solver,
    rounding: Quantizer,
    calibration: Calibration | None = None,
    baselines: Iterable[str] = BASELINES,
    trial: npt.NDArray[np.int32],
    rules: Rules | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> list[Candidate]:
    """Pack and try the solver's allocation and the baselines'; the best first.

    Args:
        model: the original model, or its `ReferenceModel`.
        game: measured on it.
        budget: the same for every candidate.
        solver: who allocates.
        rounding: how candidates are rounded.
        calibration: what they are rounded with; the game's if not given.
        baselines: solvers that the winner is compared with.
        trial: token ids (windows, length) on which candidates are compared by their KL to the original.
        rules: see `solve`.
        seed: of the solvers.
        quiet: no progress bars.

    Raises:
        BudgetError, UsageError, DataError: see `solve` and `pack`.
    """
    reference = ReferenceModel.of(model)
    others = {name: registry.create("solvers", name) for name in baselines if name != solver.name}
    found: list[Candidate] = []
    for name, player in {solver.name: solver, **others}.items():
        allocation = allocate(player, game, budget, seed=seed, rules=rules, quiet=quiet)
        packed = round_model(reference, allocation, rounding, calibration or game.calibration, quiet=quiet)
        result = evaluate({"": packed}, trial, reference=reference.model, quiet=quiet)[""]
        found.append(Candidate(name, allocation, packed, result))
    return sorted(found, key=lambda candidate: candidate.kl)
