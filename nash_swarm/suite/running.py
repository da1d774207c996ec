"""A benchmark run: measure once per model, solve every cell, pack and try every different allocation once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import registry
from nash_swarm.artifacts.allocation import load_allocation
from nash_swarm.artifacts.game import load_game, save_game
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import DataError
from nash_swarm.files.arrays import array_digest
from nash_swarm.game.budget import Budget
from nash_swarm.models.source import Source
from nash_swarm.models.tasks import require_predictions
from nash_swarm.names import BUILT_IN, Granularity
from nash_swarm.pipeline.agents import find_agents
from nash_swarm.pipeline.measuring import measure
from nash_swarm.suite.fanning import check_backend, fan_out
from nash_swarm.suite.folder import ReportFolder, check_report_folder, key_of
from nash_swarm.suite.heatmap import of_allocation
from nash_swarm.suite.record import library_versions, versions_text
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import PROTOCOL, Row, loss_figures, size_figures
from nash_swarm.suite.settings import Settings
from nash_swarm.suite.sources import Texts, forget_sources, identity_of, source_of
from nash_swarm.suite.tasks import Solving, Trying

_PROOF = ("predicted_damage", "lower_bound", "gap", "price", "unilateral_regret", "exchange_regret", "fill")


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
    texts = Texts.of(settings)
    # one name for one model, here and in workers that may be in other folders
    settings = replace(settings, models=tuple(_absolute(model) for model in settings.models))
    _check_budgets(settings)
    running = _Run(settings, ReportFolder(out), texts, jobs, backend, quiet)
    running.measure()
    found = running.solve()
    reused = running.pack_and_evaluate()
    forget_sources()
    facts = {
        "settings": settings.facts() | {"models": list(dict.fromkeys(cell.game.name for cell in running.cells))},
        "seconds": time.perf_counter() - started,
        "cells": len(running.cells),
        "cells_found_finished": found,
        "packings": len(set(running.packings.values())),
        "packings_found_finished": reused,
    }
    return replace(running.results(), command=command, facts=facts)


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


def _absolute(model: str) -> str:
    """The whole path of what is a path; names stay names."""
    return str(Path(model).resolve()) if model not in BUILT_IN and Path(model).exists() else model


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


class _Run:
    """The stages of a run, each of which leaves its work in the folder.

    Attributes:
        cells: the rows to be, once games are measured.
        packings: key of the packing by key and quantizer of a cell that could be solved, once that is done.
    """

    def __init__(
        self, settings: Settings, folder: ReportFolder, texts: Texts, jobs: int, backend: str, quiet: bool
    ) -> None:
        self.settings, self.folder, self.texts, self.quiet = settings, folder, texts, quiet
        self._sharing: dict[str, Any] = {"jobs": jobs, "backend": backend, "quiet": quiet}
        self.cells: list[_Cell] = []
        self.packings: dict[tuple[str, str], str] = {}

    def measure(self) -> None:
        """Measure every model with every estimator and granularity."""
        settings, players = self.settings, self.settings.players()
        for game in [game for model in settings.models for game in self._games(model)]:
            for quantizer in settings.quantizers:
                for bits in settings.bits:
                    for name, solver in players.items():
                        origin = registry.origin("solvers", name)
                        key = key_of([game.key, name, origin, asdict(solver), bits, settings.seed])
                        self.cells.append(_Cell(game, name, quantizer, bits, key))

    def _games(self, model: str) -> Iterator[_Game]:
        settings = self.settings
        source, _ = source_of(model, settings.trust_remote_code)
        tokens = self.texts.calibration_windows(settings, source)
        windows = self.texts.evaluation_windows(settings, source)
        identity = identity_of(source.model)
        for damage, estimator in settings.estimators().items():
            for granularity in settings.granularities:
                digest = key_of([
                    identity, damage, registry.origin("damage", damage), asdict(estimator), granularity,
                    list(settings.strategies), settings.scope, settings.group_size, settings.seed,
                    array_digest(tokens), library_versions(),
                ])  # fmt: skip
                stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.name).strip(".-") or "model"
                key = f"{stem}-{digest}"
                parameters = self._measured(key, source, estimator, granularity)
                yield _Game(
                    key, model, source.name, source.note, damage, granularity, int(tokens.size), parameters, windows
                )

    def _measured(self, key: str, source: Source, estimator: DamageEstimator, granularity: Granularity) -> int:
        """Measure the game unless the folder has it; returns its parameters."""
        settings, file = self.settings, self.folder.file("games", key, ".npz")
        if file.exists():
            try:
                return load_game(file).parameters
            except DataError:  # measured again
                file.unlink()
        game = measure(
            source.model, source.tokenizer, text=self.texts.calibration, damage=estimator, granularity=granularity,
            strategies=settings.strategies, scope=settings.scope, group_size=settings.group_size,
            windows=settings.windows, length=settings.length, seed=settings.seed, name=source.name, quiet=self.quiet,
        )  # fmt: skip
        save_game(game, file, overwrite=True)
        return game.parameters

    def solve(self) -> int:
        """Solve every cell that is not yet; returns how many were."""
        players = self.settings.players()
        unique = {cell.key: cell for cell in self.cells}
        tasks = [
            Solving(
                str(self.folder.path.resolve()), key, cell.game.key, players[cell.solver], cell.bits, self.settings.seed
            )
            for key, cell in unique.items()
            if not self._is_solved(key)
        ]
        done = len(unique) - len(tasks)
        fan_out(tasks, label="solve", unit="cell", done=done, **self._sharing)
        return done

    def _is_solved(self, key: str) -> bool:
        cell = self.folder.find("cells", key)
        return cell is not None and ("error" in cell or self.folder.file("allocations", cell["allocation"]).exists())

    def pack_and_evaluate(self) -> int:
        """Pack and try every different allocation that has not been yet; returns how many were."""
        import torch

        settings, roundings = self.settings, self.settings.roundings()
        before, jobs = torch.get_num_threads(), self._sharing["jobs"]
        threads = 0 if jobs == 1 else max(1, before // (before if jobs < 0 else jobs))
        tasks: dict[str, Trying] = {}
        for cell in self.cells:
            solved = self.folder.find("cells", cell.key) or {}
            if "error" in solved:
                continue
            rounding = roundings[cell.quantizer]
            key = key_of([
                solved["allocation"], cell.quantizer, registry.origin("quantizers", cell.quantizer), asdict(rounding),
                settings.activations, array_digest(cell.game.windows), library_versions(),
            ])  # fmt: skip
            self.packings[cell.key, cell.quantizer] = key
            if key not in tasks and self.folder.find("packings", key) is None:
                tasks[key] = Trying(
                    str(self.folder.path.resolve()), key, solved["allocation"], cell.game.model,
                    settings.trust_remote_code, rounding, settings.activations, cell.game.windows,
                    self.texts.evaluation.source, threads,
                )  # fmt: skip
        done = len(set(self.packings.values())) - len(tasks)
        try:
            fan_out([*tasks.values()], label="pack and evaluate", unit="model", done=done, **self._sharing)
        finally:
            torch.set_num_threads(before)
        return done

    def results(self) -> Results:
        """Everything that the folder has of the cells."""
        rows: list[Row] = []
        failures: list[dict[str, Any]] = []
        details: dict[str, dict[str, Any]] = {}
        maps: dict[str, Any] = {}
        first: dict[str, str] = {}
        load = lru_cache(maxsize=1)(load_game)
        for cell in self.cells:
            game, solved = cell.game, self.folder.find("cells", cell.key) or {}
            if "error" in solved:
                failures.append({
                    "model": game.name, "method": cell.solver, "bits": cell.bits, "error": solved["error"],
                })  # fmt: skip
                continue
            packing = self.packings[cell.key, cell.quantizer]
            tried = self.folder.find("packings", packing) or {}
            shared = first.setdefault(packing, cell.solver)
            rows.append(self._row(cell, solved, tried, "" if shared == cell.solver else shared))
            details[cell.key] = {name: solved[name] for name in ("trace", "allocation")}
            name = solved["allocation"]
            if name not in maps:
                allocation = load_allocation(self.folder.file("allocations", name))
                maps[name] = of_allocation(allocation, load(self.folder.file("games", game.key, ".npz"))).to_dict()
        return Results(tuple(rows), "", details, maps, tuple(failures))

    def _row(self, cell: _Cell, solved: dict[str, Any], tried: dict[str, Any], shares: str) -> Row:
        settings, game, texts = self.settings, cell.game, self.texts
        return Row(
            protocol=PROTOCOL, model=game.name, method=cell.solver, quantizer=cell.quantizer, damage=game.damage,
            granularity=game.granularity, scope=settings.scope, activations=settings.activations, bits=cell.bits,
            seed=settings.seed, tokens=tried["tokens"], kl=tried["kl"], top1=tried["top1"], agents=solved["agents"],
            solve_seconds=solved["solve_seconds"], pack_seconds=tried["pack_seconds"],
            evaluate_seconds=tried["evaluate_seconds"], shares=shares, text=texts.calibration.source,
            text_digest=texts.calibration.digest, calibration_tokens=game.calibration_tokens,
            eval_text=texts.evaluation.source, eval_text_digest=texts.evaluation.digest, note=game.note,
            versions=versions_text(), key=cell.key,
            **size_figures(game.parameters, tried["bytes"]),
            **loss_figures(tried["loss"], tried["reference_loss"]),
            **{name: solved["certificate"][name] for name in _PROOF},
        )  # fmt: skip
