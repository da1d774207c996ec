"""All stages in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nash_swarm
from nash_swarm import arguments, registry
from nash_swarm.artifacts.packed_model import counted_bytes, save
from nash_swarm.calibration.text import (
    BUILT_IN_TEXT,
    Part,
    TextSource,
    hint_at_text,
    load_text,
    sample_windows,
    shortage,
    warn_left_out,
)
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import UsageError
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.files.atomic import check_new_folder, check_space
from nash_swarm.files.named import require_source
from nash_swarm.files.places import source_places
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.budget import Budget, parse_size
from nash_swarm.game.rules import Rules, check_rules
from nash_swarm.game.strategies import DEFAULT_STRATEGIES
from nash_swarm.models.offload import require_in_memory
from nash_swarm.models.source import Source, load_source
from nash_swarm.models.tasks import task_of
from nash_swarm.names import DEFAULT_SOLVER, SCOPES, Granularity, Levels, Scope
from nash_swarm.pipeline.agents import find_agents
from nash_swarm.pipeline.effort import Effort, find_effort
from nash_swarm.pipeline.keeping import kept_game
from nash_swarm.pipeline.measuring import measure
from nash_swarm.pipeline.packing import pack
from nash_swarm.pipeline.playing import BASELINES, play, trial_shortage, trial_windows
from nash_swarm.pipeline.solving import allocate
from nash_swarm.pipeline.tuning import Tuned, tune
from nash_swarm.pipeline.unmet import unmet_budget, unmet_rules
from nash_swarm.quantizers.formats.known import check_strategies, format_for
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.solvers.base import Solver
from nash_swarm.tuning.student import check_head


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
            the best is what was saved. Empty without a contest.
        divergence: what `trial` holds: `KL`, or `1 - cosine` for an encoder.
        tuning: KL on calibration windows that tuning left out, by step; the state with the least is what was saved.
            Empty without tuning.
        trial_tokens, tuning_tokens: what `trial` and `tuning` are means over.
        text: what all of these are of.
        left_out: what was given or asked for and is not in the result, a sentence each.
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


def compress(
    model: str | os.PathLike[str] | Source,
    *,
    out: str | Path,
    bits: float | None = None,
    size: str | int | None = None,
    solver: str | Solver = DEFAULT_SOLVER,
    quantizer: str | Quantizer | None = None,
    damage: str | DamageEstimator = "fisher",
    granularity: Granularity | None = None,
    strategies: tuple[int, ...] = DEFAULT_STRATEGIES,
    text: TextSource = BUILT_IN_TEXT,
    chat_template: bool = False,
    scope: Scope = "model",
    group_size: int | None = None,
    levels: Levels | None = None,
    effort: str | Effort = "default",
    windows: int | None = None,
    eval_windows: int = 16,
    rules: Rules | None = None,
    rounds: int = 0,
    contest: bool | None = None,
    seed: int = 0,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    max_memory: str | int | None = None,
    quiet: bool = False,
) -> Compressed:
    """Fit a model into a budget and save it: measure -> solve -> pack -> evaluate.

    A run that was killed leaves what it has measured, the whole game or the matrices it has finished, hidden beside
    `out`; the next run for the same output with the same model, text and settings (the budget may be another) takes it
    up from there.

    Args:
        model: directory, hub id, `.gguf` file, built-in name, or a loaded source.
        out: folder to write; not the model's own, nor one that holds it.
        bits, size: the budget, exactly one of them, see `solve`.
        solver, quantizer, damage: names or instances; the quantizer is the effort's if not given.
        granularity, strategies, scope, group_size, levels: see `measure`; granularity, group size and levels are the
            effort's if not given.
        effort: name of settings that trade minutes for quality, see `effort.EFFORTS`, or such settings.
        windows: calibration windows that damage is measured on and matrices are rounded with; the effort's if not
            given.
        text: calibration text, see `load_text`; every fourth window of it is held out for the evaluation.
        chat_template: make plain text into dialogues, shown through the tokenizer's chat template.
        eval_windows: held-out windows that are evaluated; 0 for none.
        rules: see `solve`.
        rounds: how often the damage is measured again at the packed model and the game played again, see `play`.
        contest: pack `uniform` and `quantile` too, try all on calibration text held out from the game, and keep the
            best: the result is never worse than they are at the same bytes. The effort's if not given.
        seed: of everything random.
        overwrite: replace a folder that holds a packed model and nothing that nash-swarm does not write.
        trust_remote_code: let transformers run code that comes with the model.
        max_memory: a model that needs more in memory is read from disk block by block, see `load_source`.
        quiet: no progress bars.

    Raises:
        UsageError, BudgetError, DataError: see the stages.

    Warns:
        LeftOutWarning: something that was given or asked for is not in the result; `left_out` has the same sentences.
        TextWarning: a model that talks is calibrated on the built-in text.
    """
    # what can be refused is refused in the order of its price: names, files, the model, and only then the measuring
    out = arguments.place("out", out)
    if not isinstance(model, (str, os.PathLike, Source)):
        raise UsageError(f"compress takes a path, a hub id or a Source, not {arguments.shown(model)}")
    check_rules(rules)
    for name, value, least in (("seed", seed, 0), ("rounds", rounds, 0), ("eval_windows", eval_windows, 0)):
        arguments.whole(name, value, least)
    given = model.model if isinstance(model, Source) else model
    check_new_folder(out, overwrite=overwrite, sources=source_places(given, text))
    Budget.of(1, bits, size)
    chosen: Solver = registry.resolve("solvers", solver, "solve")
    settled = effort if isinstance(effort, Effort) else find_effort(effort)
    quantizer = settled.quantizer if quantizer is None else quantizer
    rounding: Quantizer = registry.resolve("quantizers", quantizer, "round")
    estimator: DamageEstimator = registry.resolve("damage", damage, "sensitivity")
    granularity = settled.granularity if granularity is None else granularity
    if levels is None:
        levels = "uniform" if granularity == "parameter" else settled.levels
    group_size = settled.group_size if group_size is None else group_size
    rounding_windows = settled.rounding_windows if windows is None else windows
    windows = settled.windows if windows is None else windows
    contest = settled.contest if contest is None else contest
    arguments.whole("the number of windows", windows, 1)
    if max_memory is not None:
        parse_size(max_memory)
    format_for(granularity, levels, group_size)
    arguments.choice("scope", scope, SCOPES)
    strategies = check_strategies(strategies, granularity)
    if settled.tuning is not None and granularity == "parameter":
        raise UsageError("this effort tunes the packed model, which cannot be done at parameter granularity")
    if not isinstance(model, Source):
        require_source(model)
    loaded = load_text(text, chat_template=chat_template)
    left_out: list[str] = list(loaded.left_out)
    source = model
    if not isinstance(source, Source):
        source = load_source(
            os.fspath(source),
            trust_remote_code=trust_remote_code,
            max_memory=max_memory,
            scratch=Path(out).absolute().parent,
        )
    left_out += source.left_out
    if rounds:
        require_in_memory(source.model, "rounds")
    if settled.tuning is not None:
        require_in_memory(source.model, "tuning")
        check_head(source.model)
    agents = find_agents(
        source.model, estimator, granularity=granularity, strategies=strategies, scope=scope, group_size=group_size,
        levels=levels,
    )  # fmt: skip
    budget = Budget.of(agents.parameters, bits, size)
    agents.check(budget, rules)
    asked = unmet_rules(agents.tensors, rules)
    largest = agents.fixed_bits + int(agents.memory[:, -1].sum())
    asked += unmet_budget(budget, agents.strategies, largest, agents.parameters, granularity)
    warn_left_out(asked)
    left_out += asked
    told = frozenset(left_out)
    if scope == "model":
        check_space(out, min(budget.total_bits, largest) // 8)
    settings = {
        "version": nash_swarm.__version__, "damage": [estimator.name, asdict(estimator)], "granularity": granularity,
        "strategies": strategies, "text": [loaded.source, loaded.digest], "scope": scope, "group_size": group_size,
        "levels": levels, "windows": windows, "seed": seed, "name": source.name,
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in source.files],
    }  # fmt: skip
    measured_game = partial(
        measure, source.model, source.tokenizer, text=loaded, damage=estimator, granularity=granularity,
        strategies=strategies, scope=scope, group_size=group_size, levels=levels, windows=windows, seed=seed,
        name=source.name, quiet=quiet,
    )  # fmt: skip

    def text_windows(part: Part, count: int) -> npt.NDArray[np.int32]:
        asked: Any = {"count": count, "part": part, "model": source.model}
        found = sample_windows(loaded, source.tokenizer, np.random.default_rng(seed), **asked)
        left_out.extend(shortage(found, loaded, **asked))
        return found

    with kept_game(Path(out), settings, source.model, budget.total_bits // 8, measured_game) as game:
        rng = np.random.default_rng(seed)
        rounded_with = game.calibration
        if rounded_with is not None:
            hint_at_text(loaded, source.tokenizer)
            left_out += shortage(rounded_with.tokens, loaded, count=windows, part="calibration", model=source.model)
        if rounded_with is not None and source.tokenizer is not None and rounding_windows > windows:
            rounded_with = replace(rounded_with, tokens=text_windows("calibration", rounding_windows))
        if game.calibration is not None and source.tokenizer is not None and (contest or rounds):
            tried = trial_windows(source.model, game, loaded, source.tokenizer, rng, rounding=rounded_with)
            left_out += trial_shortage(tried, game, loaded, rounding=rounded_with)
            ranking = play(
                source.model, game, budget, solver=chosen, quantizer=rounding, calibration=rounded_with,
                propagation=settled.propagation, rounds=rounds, baselines=BASELINES if contest else (), rules=rules,
                trial=tried, seed=seed, quiet=quiet,
            )  # fmt: skip
            trial = {candidate.name: candidate.kl for candidate in ranking}
            losses = {candidate.name: candidate.trial.loss for candidate in ranking}
            allocation, packed = ranking[0].allocation, ranking[0].packed
            trial_tokens = ranking[0].trial.tokens
        else:
            trial, losses, trial_tokens = {}, {}, 0
            allocation = allocate(chosen, game, budget, seed=seed, rules=rules, quiet=quiet)
            allocation = replace(allocation, calibration=rounded_with)
            packed = pack(source.model, allocation, quantizer=rounding, propagation=settled.propagation, quiet=quiet)
        tuned: Tuned | None = None
        if settled.tuning is not None and game.calibration is not None and source.tokenizer is not None:
            seen = text_windows("calibration", settled.tuning_windows)
            tuned = tune(source.model, packed, seen, settled.tuning, seed=seed, quiet=quiet)
            packed = tuned.packed
        found: dict[str, Evaluation] = {}
        measured: dict[str, Any] | None = None
        if eval_windows > 0 and source.tokenizer is not None:
            held_out = text_windows("held-out", eval_windows)
            found = evaluate(
                {"packed": packed, "reference": source.model}, held_out, reference=source.model, quiet=quiet
            )
            measured = figures(found["packed"], found["reference"], loaded.source)
            measured |= {"trial_kl": trial, "trial_loss": losses, "trial_tokens": trial_tokens}
            if rounded_with is not None:
                measured["rounding_tokens"] = int(rounded_with.tokens.size)
            if tuned is not None:
                measured |= {
                    "tuning_kl": tuned.history, "tuning_kept": tuned.step, "tuning_precision": tuned.precision,
                    "tuning_tokens": tuned.tokens,
                }  # fmt: skip
        left_out = list(dict.fromkeys(left_out))
        warn_left_out(line for line in left_out if line not in told)
        save(
            packed, out, tokenizer=source.tokenizer, allocation=allocation, measured=measured, files=source.files,
            left_out=tuple(left_out), overwrite=overwrite,
        )  # fmt: skip
        file_bytes = counted_bytes(out)
        used = file_bytes * 8 if scope == "model" else allocation.certificate.used_bits
        return Compressed(
            Path(out), allocation, file_bytes, used / game.parameters, found.get("packed"), found.get("reference"),
            trial, task_of(source.model).divergence, {} if tuned is None else tuned.history,
            trial_tokens, 0 if tuned is None else tuned.tokens, loaded.source, tuple(left_out),
        )  # fmt: skip


def figures(packed: Evaluation, reference: Evaluation | None, text: str) -> dict[str, Any]:
    """An evaluation as the report and the model card give it."""
    values = {"text": text, **asdict(packed), "perplexity": packed.perplexity}
    if reference is not None:
        values["reference_perplexity"] = reference.perplexity
    return {name: value for name, value in values.items() if value is not None}
