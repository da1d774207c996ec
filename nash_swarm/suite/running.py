"""A benchmark run: measure once per model, solve every cell, pack and try every different allocation once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import registry
from nash_swarm.artifacts.allocation import load_allocation
from nash_swarm.artifacts.game import load_game, save_game
from nash_swarm.calibration.text import Text, load_text, sample_windows, shortage, warn_left_out
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import DataError
from nash_swarm.files.arrays import array_digest
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.models.tasks import require_predictions
from nash_swarm.names import BUILT_IN, Granularity
from nash_swarm.pipeline.agents import find_agents
from nash_swarm.pipeline.measuring import measure
from nash_swarm.suite.fanning import check_backend, fan_out
from nash_swarm.suite.folder import ReportFolder, check_report_folder, key_of
from nash_swarm.suite.heatmap import of_allocation
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import PROTOCOL, Row, library_versions, loss_figures, size_figures, versions_text
from nash_swarm.suite.settings import Settings
from nash_swarm.suite.sources import forget_sources, source_of, weights_digest
from nash_swarm.suite.tasks import Solving, Trying


@dataclass(frozen=True, eq=False)
class _Game:
    """One measured model."""

    key: str
    model: str
    name: str
    note: str
    damage: str
    granularity: str
    calibration_tokens: int
    parameters: int
    windows: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Cell:
    """One row to be."""

    game: _Game
    solver: str
    quantizer: str
    bits: float
    key: str


def run(
    settings: Settings,
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    command: str = "",
    quiet: bool = False,
) -> Results:
    """Run every cell that the folder does not have yet, and collect the figures of all.

    Args:
        settings: what to run.
        out: folder of the report; whatever an earlier run finished in it with the same settings is not done again.
        jobs, backend: see `fan_out`; torch's threads are shared out among the jobs.
        command: the command line, for the record.
        quiet: no progress bars.

    Raises:
        UsageError, BudgetError, DataError: see the stages; all that can be refused is refused before measuring.
    """
    started = time.perf_counter()
    check_report_folder(out)
    settings.check()
    check_backend(jobs, backend)
    text = load_text(settings.text, chat_template=settings.chat_template)
    eval_text = load_text(settings.eval_text, chat_template=settings.chat_template) if settings.eval_text else text
    # one name for one model, here and in workers that may be in other folders
    settings = replace(settings, models=tuple(_absolute(model) for model in settings.models))
    _check_budgets(settings)
    folder = ReportFolder(out)
    games = [game for model in settings.models for game in _measure(settings, folder, model, text, eval_text, quiet)]
    cells = list(_cells(settings, games))
    found = _solve(settings, folder, cells, jobs, backend, quiet)
    packings, reused = _try(settings, folder, cells, eval_text.source, jobs, backend, quiet)
    rows, failures, details = _rows(settings, folder, cells, packings, text, eval_text)
    forget_sources()
    facts = {
        "settings": settings.facts() | {"models": list(dict.fromkeys(game.name for game in games))},
        "seconds": time.perf_counter() - started,
        "cells": len(cells),
        "cells_found_finished": found,
        "packings": len(set(packings.values())),
        "packings_found_finished": reused,
    }
    maps = _maps(folder, cells)
    return Results(tuple(rows), command, details, maps, tuple(failures), facts=facts)


def _check_budgets(settings: Settings) -> None:
    """Refuse models without perplexity, and a budget that one cannot meet, before the first one is measured."""
    for model in settings.models:
        source, _ = source_of(model, settings.trust_remote_code)
        require_predictions(source.model, "a benchmark")
        for estimator in settings.estimators().values():
            for granularity in settings.granularities:
                agents = find_agents(
                    source.model, estimator, granularity=granularity, strategies=settings.strategies,
                    scope=settings.scope, group_size=settings.group_size,
                )  # fmt: skip
                agents.check(Budget.of_bits(min(settings.bits), agents.parameters))


def _measure(
    settings: Settings, folder: ReportFolder, model: str, text: Text, eval_text: Text, quiet: bool
) -> Iterator[_Game]:
    source, _ = source_of(model, settings.trust_remote_code)
    asked: Any = {
        "count": settings.windows, "length": settings.length, "part": "calibration", "model": source.model,
    }  # fmt: skip
    tokens = sample_windows(text, source.tokenizer, np.random.default_rng(settings.seed), **asked)
    asked |= {"count": settings.eval_windows, "part": "held-out" if eval_text.digest == text.digest else "all"}
    windows = sample_windows(eval_text, source.tokenizer, np.random.default_rng(settings.seed), **asked)
    warn_left_out(shortage(windows, eval_text, **asked))
    weights = weights_digest(source.model)
    for damage, estimator in settings.estimators().items():
        for granularity in settings.granularities:
            key = _game_key(settings, source.name, weights, estimator, granularity, tokens)
            game = _measured(settings, folder, key, model, estimator, granularity, text, quiet)
            yield _Game(
                key, model, source.name, source.note, damage, granularity, int(tokens.size), game.parameters, windows
            )


def _game_key(
    settings: Settings, name: str, weights: str, estimator: DamageEstimator, granularity: str, tokens: Any
) -> str:
    digest = key_of([
        weights, estimator.name, registry.origin("damage", estimator.name), asdict(estimator), granularity,
        list(settings.strategies), settings.scope, settings.group_size, settings.seed, array_digest(tokens),
        dict(library_versions()),
    ])  # fmt: skip
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('.-') or 'model'}-{digest}"


def _measured(
    settings: Settings, folder: ReportFolder, key: str, model: str, estimator: DamageEstimator,
    granularity: Granularity, text: Text, quiet: bool,
) -> BitGame:  # fmt: skip
    file = folder.file("games", key, ".npz")
    if file.exists():
        try:
            return load_game(file)
        except DataError:  # measured again
            file.unlink()
    source, _ = source_of(model, settings.trust_remote_code)
    game = measure(
        source.model, source.tokenizer, text=text, damage=estimator, granularity=granularity,
        strategies=settings.strategies, scope=settings.scope, group_size=settings.group_size,
        windows=settings.windows, length=settings.length, seed=settings.seed, name=source.name, quiet=quiet,
    )  # fmt: skip
    save_game(game, file, overwrite=True)
    return game


def _cells(settings: Settings, games: Sequence[_Game]) -> Iterator[_Cell]:
    for game in games:
        for quantizer in settings.quantizers:
            for bits in settings.bits:
                for name, solver in settings.players().items():
                    origin = registry.origin("solvers", name)
                    key = key_of([game.key, name, origin, asdict(solver), bits, settings.seed])
                    yield _Cell(game, name, quantizer, bits, key)


def _solve(
    settings: Settings, folder: ReportFolder, cells: Sequence[_Cell], jobs: int, backend: str, quiet: bool
) -> int:
    """Solve every cell that is not yet; returns how many were."""
    players = settings.players()
    unique = {cell.key: cell for cell in cells}
    tasks = [
        Solving(str(folder.path.resolve()), key, cell.game.key, players[cell.solver], cell.bits, settings.seed)
        for key, cell in unique.items()
        if not _is_solved(folder, key)
    ]
    done = len(unique) - len(tasks)
    fan_out(tasks, jobs=jobs, backend=backend, label="solve", unit="cell", done=done, quiet=quiet)
    return done


def _is_solved(folder: ReportFolder, key: str) -> bool:
    cell = folder.find("cells", key)
    return cell is not None and ("error" in cell or folder.file("allocations", cell["allocation"]).exists())


def _try(
    settings: Settings, folder: ReportFolder, cells: Sequence[_Cell], text: str, jobs: int, backend: str, quiet: bool
) -> tuple[dict[tuple[str, str], str], int]:
    """Pack and try every different allocation that has not been yet.

    Returns the packings of cells by key and quantizer, and how many of them were there.
    """
    import torch

    roundings = settings.roundings()
    before = torch.get_num_threads()
    threads = 0 if jobs == 1 else max(1, before // (before if jobs < 0 else jobs))
    packings: dict[tuple[str, str], str] = {}
    tasks: dict[str, Trying] = {}
    for cell in cells:
        solved = folder.find("cells", cell.key) or {}
        if "error" in solved:
            continue
        rounding = roundings[cell.quantizer]
        key = key_of([
            solved["allocation"], cell.quantizer, registry.origin("quantizers", cell.quantizer), asdict(rounding),
            settings.activations, array_digest(cell.game.windows), dict(library_versions()),
        ])  # fmt: skip
        packings[cell.key, cell.quantizer] = key
        if key not in tasks and folder.find("packings", key) is None:
            tasks[key] = Trying(
                str(folder.path.resolve()), key, solved["allocation"], cell.game.model,
                settings.trust_remote_code, rounding, settings.activations, cell.game.windows, text, threads,
            )  # fmt: skip
    done = len(set(packings.values())) - len(tasks)
    try:
        fan_out(
            list(tasks.values()), jobs=jobs, backend=backend, label="pack and evaluate", unit="model", done=done,
            quiet=quiet,
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    return packings, done


def _rows(
    settings: Settings,
    folder: ReportFolder,
    cells: Sequence[_Cell],
    packings: dict[tuple[str, str], str],
    text: Text,
    eval_text: Text,
) -> tuple[list[Row], list[dict[str, Any]], dict[str, dict[str, Any]]]:
    rows: list[Row] = []
    failures: list[dict[str, Any]] = []
    details: dict[str, dict[str, Any]] = {}
    first: dict[str, str] = {}
    for cell in cells:
        game, solved = cell.game, folder.find("cells", cell.key) or {}
        if "error" in solved:
            failures.append({"model": game.name, "method": cell.solver, "bits": cell.bits, "error": solved["error"]})
            continue
        packing = packings[cell.key, cell.quantizer]
        tried = folder.find("packings", packing) or {}
        shared = first.setdefault(packing, cell.solver)
        certificate = solved["certificate"]
        rows.append(Row(
            protocol=PROTOCOL, model=game.name, method=cell.solver, quantizer=cell.quantizer, damage=game.damage,
            granularity=game.granularity, scope=settings.scope, activations=settings.activations, bits=cell.bits,
            seed=settings.seed, tokens=tried["tokens"], kl=tried["kl"], top1=tried["top1"], agents=solved["agents"],
            solve_seconds=solved["solve_seconds"], pack_seconds=tried["pack_seconds"],
            evaluate_seconds=tried["evaluate_seconds"], shares="" if shared == cell.solver else shared,
            text=text.source, text_digest=text.digest, calibration_tokens=game.calibration_tokens,
            eval_text=eval_text.source, eval_text_digest=eval_text.digest, note=game.note, versions=versions_text(),
            key=cell.key,
            **size_figures(game.parameters, tried["bytes"]),
            **loss_figures(tried["loss"], tried["reference_loss"]),
            **{name: certificate[name] for name in _PROOF},
        ))  # fmt: skip
        details[cell.key] = {name: solved[name] for name in ("trace", "timings", "allocation")}
    return rows, failures, details


_PROOF = ("predicted_damage", "lower_bound", "gap", "price", "unilateral_regret", "exchange_regret", "fill")


def _maps(folder: ReportFolder, cells: Sequence[_Cell]) -> dict[str, Any]:
    """Heat maps of all allocations, by their keys."""
    found: dict[str, Any] = {}
    games: dict[str, BitGame] = {}
    for cell in cells:
        name = (folder.find("cells", cell.key) or {}).get("allocation")
        if name is None or name in found:
            continue
        if cell.game.key not in games:
            games = {cell.game.key: load_game(folder.file("games", cell.game.key, ".npz"))}
        allocation = load_allocation(folder.file("allocations", name))
        found[name] = of_allocation(allocation, games[cell.game.key]).to_dict()
    return found


def _absolute(model: str) -> str:
    """The whole path of what is a path; names stay names."""
    return str(Path(model).resolve()) if model not in BUILT_IN and Path(model).exists() else model
