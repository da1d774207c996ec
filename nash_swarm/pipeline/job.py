"""What `compress` works on, once everything that can be refused has been: the stages share it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments, registry
from nash_swarm.calibration.text import Part, Text, hint_at_text, load_text, sample_windows, shortage, warn_left_out
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import UsageError
from nash_swarm.files.atomic import check_new_folder, check_space
from nash_swarm.files.named import require_source
from nash_swarm.files.places import source_places
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.budget import Budget, parse_size
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.models.source import Source, load_source
from nash_swarm.names import VERSION
from nash_swarm.pipeline.agents import find_agents
from nash_swarm.pipeline.measuring import measure
from nash_swarm.pipeline.pieces import Pieces
from nash_swarm.pipeline.unmet import unmet_budget, unmet_rules
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.recipe import Recipe
from nash_swarm.solvers.base import Solver
from nash_swarm.tuning.student import check_head


@dataclass(frozen=True, eq=False)
class Job:
    """One compression.

    Attributes:
        out: folder to write.
        recipe: checked.
        source: the model with its tokenizer and small files.
        reference: the model as the stages take it.
        text: calibration text.
        budget: in bits of this model.
        solver, rounding, estimator: who does the recipe's stages.
        quiet: no progress bars.
        left_out: what was given or asked for and is not in the result, a sentence each; stages append to it.
        told: those of them that were warned of already.
    """

    out: Path
    recipe: Recipe
    source: Source
    reference: ReferenceModel
    text: Text
    budget: Budget
    solver: Solver
    rounding: Quantizer
    estimator: DamageEstimator
    quiet: bool
    left_out: list[str] = field(default_factory=list)
    told: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, model: str | os.PathLike[str] | Source, out: str | Path, recipe: Recipe, *, overwrite: bool,
        trust_remote_code: bool, max_memory: str | int | None, quiet: bool,
    ) -> Job:  # fmt: skip
        """The job, with all that can be refused refused in the order of its price: names, files, the model.

        Args:
            model, out, recipe, overwrite, trust_remote_code, max_memory, quiet: see `compress`.

        Raises:
            UsageError, BudgetError, DataError: see `compress`.
        """
        out = arguments.place("out", out)
        if not isinstance(model, (str, os.PathLike, Source)):
            raise UsageError(f"compress takes a path, a hub id or a Source, not {arguments.shown(model)}")
        given = model.model if isinstance(model, Source) else model
        check_new_folder(out, overwrite=overwrite, sources=source_places(given, recipe.measuring.text))
        solver: Solver = registry.resolve("solvers", recipe.solving.solver, "solve")
        rounding: Quantizer = registry.resolve("quantizers", recipe.rounding.quantizer, "round")
        estimator: DamageEstimator = registry.resolve("damage", recipe.measuring.damage, "sensitivity")
        recipe = recipe.checked()
        if max_memory is not None:
            parse_size(max_memory)
        if recipe.tuning is not None and recipe.cut.granularity == "parameter":
            raise UsageError("this effort tunes the packed model, which cannot be done at parameter granularity")
        if not isinstance(model, Source):
            require_source(model)
        text = load_text(recipe.measuring.text, chat_template=recipe.measuring.chat_template)
        source = model if isinstance(model, Source) else load_source(
            os.fspath(model), trust_remote_code=trust_remote_code, max_memory=max_memory,
            scratch=out.absolute().parent,
        )  # fmt: skip
        reference = ReferenceModel.of(source.model)
        if recipe.tuning is not None:
            reference.require_in_memory("tuning")
            check_head(reference.model)
        budget, asked = _budget(reference, estimator, recipe, out)
        left_out = [*text.left_out, *source.left_out, *asked]
        return cls(
            out, recipe, source, reference, text, budget, solver, rounding, estimator, quiet, left_out,
            frozenset(left_out),
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """All that determines the game but the model, JSON values."""
        measuring = self.recipe.measuring
        return {
            "version": VERSION, "damage": [self.estimator.name, asdict(self.estimator)],
            **asdict(self.recipe.cut), "text": [self.text.source, self.text.digest], "windows": measuring.windows,
            "length": measuring.length, "seed": self.recipe.seed, "name": self.source.name,
            "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in self.source.files],
        }  # fmt: skip

    def measure(self, pieces: Pieces | None = None) -> BitGame:
        """The game of the recipe's first half."""
        measuring = self.recipe.measuring
        return measure(
            self.reference, self.source.tokenizer, text=self.text, damage=self.estimator, **asdict(self.recipe.cut),
            windows=measuring.windows, length=measuring.length, seed=self.recipe.seed, name=self.source.name,
            pieces=pieces, quiet=self.quiet,
        )  # fmt: skip

    def calibration(self, game: BitGame) -> Calibration | None:
        """The windows that matrices are rounded with."""
        found, measuring = game.calibration, self.recipe.measuring
        if found is None:
            return None
        hint_at_text(self.text, self.source.tokenizer)
        self.left_out.extend(shortage(
            found.tokens, self.text, count=measuring.windows, length=measuring.length, part="calibration",
            model=self.reference.model,
        ))  # fmt: skip
        if self.source.tokenizer is None or self.recipe.rounding.windows <= measuring.windows:
            return found
        return replace(found, tokens=self.windows("calibration", self.recipe.rounding.windows))

    def windows(self, part: Part, count: int) -> npt.NDArray[np.int32]:
        """Windows of a part of the text, int32 (windows, length); what they lack is among what was left out."""
        asked: Any = {
            "count": count, "part": part, "model": self.reference.model, "length": self.recipe.measuring.length
        }  # fmt: skip
        found = sample_windows(self.text, self.source.tokenizer, self.generator(), **asked)
        self.left_out.extend(shortage(found, self.text, **asked))
        return found

    def generator(self) -> np.random.Generator:
        """A new one of the recipe's seed."""
        return np.random.default_rng(self.recipe.seed)

    def player(self, name: str) -> Solver:
        """A solver by its name."""
        solver: Solver = registry.create("solvers", name)
        return solver

    def warn(self) -> tuple[str, ...]:
        """Everything that was left out; what was not told before is warned of."""
        found = tuple(dict.fromkeys(self.left_out))
        warn_left_out(line for line in found if line not in self.told)
        return found


def _budget(
    reference: ReferenceModel, estimator: DamageEstimator, recipe: Recipe, out: Path
) -> tuple[Budget, list[str]]:
    """The budget, which the model fits into, and what of it and of the rules cannot be had.

    Raises:
        BudgetError, UsageError, DataError: see `compress`.
    """
    cut, solving = recipe.cut, recipe.solving
    agents = find_agents(reference.model, estimator, **asdict(cut))
    budget = Budget.of(agents.parameters, solving.bits, solving.size)
    agents.check(budget, solving.rules)
    largest = agents.fixed_bits + int(agents.memory[:, -1].sum())
    asked = unmet_rules(agents.tensors, solving.rules)
    asked += unmet_budget(budget, agents.strategies, largest, agents.parameters, cut.granularity)
    warn_left_out(asked)
    if cut.scope == "model":
        check_space(out, min(budget.total_bits, largest) // 8)
    return budget, asked
