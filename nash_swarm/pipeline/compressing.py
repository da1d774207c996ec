"""All stages in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

from nash_swarm import arguments
from nash_swarm.artifacts.packed_model import counted_bytes, write
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.models.source import Source
from nash_swarm.pipeline.candidates import BASELINES, Candidate, trial_shortage, trial_windows, try_candidates
from nash_swarm.pipeline.job import Job
from nash_swarm.pipeline.packing import finish, round_model
from nash_swarm.pipeline.recovery import kept_game
from nash_swarm.pipeline.solving import allocate
from nash_swarm.pipeline.tuning import Tuned, tune
from nash_swarm.recipe import Options, Recipe, find_effort


@dataclass(frozen=True, eq=False)
class Compressed:
    """What `compress` made.

    Attributes:
        path: folder of the packed model.
        allocation: the allocation with its certificate.
        file_bytes: bytes on disk that the budget covers.
        bits_per_parameter: `file_bytes` * 8 over the parameters in scope (for scope `linear`: of the packed matrices).
        evaluation: the packed model on held-out text; `None` if evaluation was switched off.
        reference: the original model on the same text.
        trial: KL (1 - cosine for an encoder) of every candidate on calibration text held out from the game, best first;
            the best is what was saved. Empty without the baseline check.
        divergence: what `trial` holds: `KL`, or `1 - cosine` for an encoder.
        tuning: KL on calibration windows that tuning left out, by step; the state with the least is what was saved.
            Empty without tuning.
        trial_tokens, tuning_tokens: what `trial` and `tuning` are means over.
        text: what all of these are of.
        left_out: what was given or asked for and is not in the result, a sentence each.
        compared: with `keep_baselines`, every candidate before tuning by the name of its solver: what was packed, and
            how it does on the held-out text.
    """

    path: Path
    allocation: Allocation
    file_bytes: int
    bits_per_parameter: float
    evaluation: Evaluation | None
    reference: Evaluation | None
    trial: Mapping[str, float]
    divergence: str
    tuning: Mapping[int, float]
    trial_tokens: int = 0
    tuning_tokens: int = 0
    text: str = ""
    left_out: tuple[str, ...] = ()
    compared: Mapping[str, tuple[Allocation, Evaluation]] = field(default_factory=dict)


def compress(
    model: str | os.PathLike[str] | Source,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    keep_baselines: bool = False,
    by: str = "",
    overwrite: bool = False,
    trust_remote_code: bool = False,
    max_memory: str | int | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> Compressed:
    """Fit a model into a budget and save it: measure -> solve -> pack -> evaluate.

    A run that was killed leaves what it has measured, the whole game or the matrices it has finished, hidden beside
    `out`; the next run for the same output with the same model, text and settings (the budget may be another) takes it
    up from there.

    Args:
        model: directory, hub id, `.gguf` file, built-in name, or a loaded source.
        out: folder to write; not the model's own, nor one that holds it.
        recipe: every choice at once; that of the effort if not given.
        keep_baselines: also evaluate what `uniform` and `quantile` make of the budget, for `Compressed.compared`.
        by: who compresses, for the report.
        overwrite: replace a folder that holds a packed model and nothing that nash-swarm does not write.
        trust_remote_code: let transformers run code that comes with the model.
        max_memory: a model that needs more in memory is read from disk block by block, see `load_source`.
        quiet: no progress bars.
        options: `effort`, a name in `recipe.EFFORTS`, and single choices, which go before the recipe's: those of
            `recipe.Options`, described at `Cut`, `Measuring`, `Solving`, `Rounding` and `Recipe`. Windows that are
            given are both measured on and rounded with; `contest` is another name of `baselines`.

    Raises:
        UsageError, BudgetError, DataError: see the stages.

    Warns:
        LeftOutWarning: something that was given or asked for is not in the result; `left_out` has the same sentences.
        TextWarning: a model that talks is calibrated on the built-in text.
    """
    chosen: dict[str, Any] = dict(options)
    effort = chosen.pop("effort", "default")
    if recipe is not None:
        arguments.instance("the recipe", recipe, Recipe, "a nash_swarm.recipe.Recipe; names are efforts")
    recipe = (find_effort(effort) if recipe is None else recipe).changed(chosen)
    job = Job.of(
        model, out, recipe, overwrite=overwrite, trust_remote_code=trust_remote_code, max_memory=max_memory, quiet=quiet
    )
    tokenizer = job.source.tokenizer
    with kept_game(job.out, job.settings(), job.reference, job.budget.total_bits // 8, job.measure) as game:
        calibration = job.calibration(game)
        ranking = _candidates(job, game, calibration, keep_baselines)
        kept = ranking[0]
        tuned: Tuned | None = None
        if job.recipe.tuning is not None and game.calibration is not None and tokenizer is not None:
            seen = job.windows("calibration", job.recipe.tuning.windows)
            tuned = tune(job.reference, kept.packed, seen, job.recipe.tuning, seed=job.recipe.seed, quiet=quiet)
        packed = kept.packed if tuned is None else tuned.packed
        config = finish(packed)
        found, measured = _evaluated(job, packed, ranking if keep_baselines else [], tuned)
        tried = {candidate.name: candidate.trial for candidate in ranking if candidate.trial is not None}
        trial = {name: result.divergence for name, result in tried.items()}
        trial_tokens = next((result.tokens for result in tried.values()), 0)
        if measured is not None:
            measured |= _trial_figures(tried, calibration) | _tuning_figures(tuned) | ({"by": by} if by else {})
        left_out = job.warn()
        write(
            packed, config, job.out, tokenizer=tokenizer, allocation=kept.allocation, measured=measured,
            files=job.source.files, left_out=left_out, overwrite=overwrite,
        )  # fmt: skip
    file_bytes = counted_bytes(job.out)
    used = file_bytes * 8 if job.recipe.cut.scope == "model" else kept.allocation.certificate.used_bits
    compared = {each.name: (each.allocation, found[each.name]) for each in ranking if each.name in found}
    return Compressed(
        job.out, kept.allocation, file_bytes, used / game.parameters, found.get("packed"), found.get("reference"),
        trial, job.reference.task.divergence, {} if tuned is None else tuned.history,
        trial_tokens, 0 if tuned is None else tuned.tokens, job.text.source, left_out, compared,
    )  # fmt: skip


def _candidates(job: Job, game: BitGame, calibration: Calibration | None, everyone: bool) -> list[Candidate]:
    """What is packed, the one to keep first: the solver's, unless the baseline check finds a better one.

    Args:
        job, game: what is solved.
        calibration: what is rounded with.
        everyone: pack the baselines even if they are not tried.
    """
    recipe, tokenizer = job.recipe, job.source.tokenizer
    solving = recipe.solving
    if game.calibration is None or tokenizer is None or not solving.baselines:
        players = [job.solver, *(job.player(name) for name in BASELINES if everyone and name != job.solver.name)]
        found: list[Candidate] = []
        for player in players:
            allocation = allocate(player, game, job.budget, seed=recipe.seed, rules=solving.rules, quiet=job.quiet)
            packed = round_model(job.reference, allocation, job.rounding, calibration, quiet=job.quiet)
            found.append(Candidate(player.name, allocation, packed, None))
        return found
    tried = trial_windows(job.reference.model, game, job.text, tokenizer, job.generator(), rounding=calibration)
    job.left_out.extend(trial_shortage(tried, game, job.text, rounding=calibration))
    return try_candidates(
        job.reference, game, job.budget, solver=job.solver, rounding=job.rounding, calibration=calibration,
        trial=tried, rules=solving.rules, seed=recipe.seed, quiet=job.quiet,
    )  # fmt: skip


def _evaluated(
    job: Job, packed: Any, others: list[Candidate], tuned: Tuned | None
) -> tuple[Mapping[str, Evaluation], dict[str, Any] | None]:
    """Evaluations on held-out text, and the report's figures of the packed model; nothing if that is switched off."""
    if not job.recipe.eval_windows or job.source.tokenizer is None:
        return {}, None
    held_out = job.windows("held-out", job.recipe.eval_windows)
    models = {"packed": packed, "reference": job.reference.model}
    models |= {each.name: each.packed for each in others if each.packed is not packed}
    found = dict(evaluate(models, held_out, reference=job.reference.model, quiet=job.quiet))
    if others and tuned is None:
        found[others[0].name] = found["packed"]
    return found, figures(found["packed"], found["reference"], job.text.source)


def _trial_figures(tried: Mapping[str, Evaluation], calibration: Calibration | None) -> dict[str, Any]:
    """What the candidates did on the trial text, by name, and the tokens that they were rounded with."""
    values: dict[str, Any] = {
        "trial_kl": {name: result.divergence for name, result in tried.items()},
        "trial_loss": {name: result.loss for name, result in tried.items()},
        "trial_tokens": next((result.tokens for result in tried.values()), 0),
    }
    return values if calibration is None else values | {"rounding_tokens": int(calibration.tokens.size)}


def _tuning_figures(tuned: Tuned | None) -> dict[str, Any]:
    if tuned is None:
        return {}
    return {
        "tuning_kl": tuned.history, "tuning_kept": tuned.step, "tuning_precision": tuned.precision,
        "tuning_tokens": tuned.tokens,
    }  # fmt: skip


def figures(packed: Evaluation, reference: Evaluation | None, text: str) -> dict[str, Any]:
    """An evaluation as the report and the model card give it."""
    values = {"text": text, **asdict(packed), "perplexity": packed.perplexity}
    if reference is not None:
        values["reference_perplexity"] = reference.perplexity
    return {name: value for name, value in values.items() if value is not None}
