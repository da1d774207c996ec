"""Our own rows: measure once, then solve, pack and perhaps tune for every budget; other tools' widths rounded by us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.bitgame import Calibration
from nash_swarm.names import default_levels
from nash_swarm.pipeline.tuning import tune
from nash_swarm.recipe import Recipe
from peer_tools.exchange import spread

_SAME = "the calibration or the settings have changed; give another --work folder"


@dataclass(frozen=True)
class Ours:
    """Our pipeline on one model and text.

    Attributes:
        model: the original.
        game: measured on it.
        tokens: calibration windows (windows, length); rounding and tuning take what they are told of them.
        effort: settings of every stage; a row may set `windows` (for rounding) and `tune` (steps; 0 for none) itself.
        solver: name.
    """

    model: Any
    game: ns.BitGame
    tokens: npt.NDArray[np.int32]
    effort: Recipe
    solver: str

    def pack(self, settings: Mapping[str, str], widths: Mapping[str, int] | None = None) -> tuple[Any, int, str]:
        """The packed model of a row, its bits, and what was done in words.

        Args:
            settings: `bits` (per weight) or `total` (bits in all); `solver`, `quantizer`, `windows` and `tune`.
            widths: other people's choice by matrix, instead of a solver's.
        """
        solver, quantizer = (
            settings.get("solver", self.solver),
            settings.get("quantizer", str(self.effort.rounding.quantizer)),
        )
        if widths is not None:
            allocation, solver = self._of_widths(widths), "their widths"
        elif "total" in settings:
            allocation = ns.solve(self.game, size=int(settings["total"]) // 8, solver=solver)
        else:
            allocation = ns.solve(self.game, bits=float(settings["bits"]), solver=solver)
        count = int(settings.get("windows", max(self.effort.measuring.windows, self.effort.rounding.windows)))
        windows = spread(self.tokens, count)
        calibration = Calibration(np.ascontiguousarray(windows), "calibration")
        words = [
            solver,
            quantizer,
            f"group {self.game.tensors[0].group_size}",
            str(self.game.provenance["granularity"]),
            f"{self.game.tensors[0].levels} levels",
            f"{len(windows)} windows",
        ]
        packed = ns.pack(self.model, allocation, quantizer=quantizer, calibration=calibration, quiet=True)
        tuning = self.effort.tuning
        steps = int(settings.get("tune", 0 if tuning is None else tuning.steps))
        if steps and tuning is None:
            raise UsageError("this effort does not tune; give another --effort")
        if steps and tuning is not None:
            seen = np.ascontiguousarray(spread(self.tokens, tuning.windows))
            packed = tune(self.model, packed, seen, replace(tuning, steps=steps), quiet=True).packed
            words.append(f"tuned {steps} steps on {len(seen)} windows")
        return packed, self.game.used_bits(allocation.choices), ", ".join(words)

    def _of_widths(self, widths: Mapping[str, int]) -> ns.Allocation:
        game = self.game
        if missing := set(widths.values()) - set(game.strategies):
            raise UsageError(f"we have no grid of {sorted(missing)} bits")
        choices = np.empty(game.agents, np.uint8)
        for tensor in game.tensors:
            choices[tensor.span] = game.strategies.index(widths[tensor.name])
        used = game.used_bits(choices)
        certificate = ns.Certificate(used, used, 0, 0, 0, 0, 0)
        return ns.Allocation.of(
            game, ns.Budget(used, "their widths"), choices, certificate, solver="none", hyperparameters={}
        )


def measured_game(model: Any, tokens: npt.NDArray[np.int32], path: Path, name: str, effort: Recipe) -> ns.BitGame:
    """The game of scope `linear` with an effort's agents and levels, from `path` if it is there.

    Raises:
        DataError: that one was measured on other text, or with other agents or levels.
    """
    levels = effort.cut.levels or default_levels(effort.cut.granularity)
    if path.exists():
        game = ns.load_game(path)
        if game.calibration is None or not np.array_equal(game.calibration.tokens, tokens):
            raise DataError(f"{path} was measured on other windows: {_SAME}")
        if game.provenance.get("granularity") != effort.cut.granularity:
            raise DataError(f"{path} has other agents than {effort.cut.granularity}s: {_SAME}")
        if game.tensors[0].levels != levels:
            raise DataError(f"{path} has other levels than {levels} ones: {_SAME}")
        return game
    game = ns.measure(
        model, tokens=np.ascontiguousarray(tokens), scope="linear", name=name, granularity=effort.cut.granularity,
        levels=levels,
    )  # fmt: skip
    ns.save_game(game, path)
    return game
