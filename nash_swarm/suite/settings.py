"""What a benchmark run is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nash_swarm import registry
from nash_swarm.calibration.text import BUILT_IN_TEXT
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import UsageError
from nash_swarm.game.budget import Budget
from nash_swarm.game.strategies import DEFAULT_STRATEGIES
from nash_swarm.names import DEFAULT_GROUP_SIZE, DEFAULT_QUANTIZER, Granularity, Scope
from nash_swarm.quantizers.formats.known import check_strategies
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.quantizers.runtime.modules import check_activations
from nash_swarm.solvers.base import Solver

ALL = "all"
"""Every solver that is installed."""


@dataclass(frozen=True)
class Settings:
    """Models, and everything that they are put through.

    Attributes:
        models: directories, hub ids, `.gguf` files or built-in names.
        solvers, quantizers, damages: names; every combination of them is a cell.
        bits: budgets, bits per parameter.
        granularities: what an agent is.
        scope, strategies, group_size, windows, length: see `measure`; the windows of losses have that length too.
        text: calibration text.
        eval_text: text that losses are of; if it is the calibration text, the windows that are held out of it.
        eval_windows: windows that losses are of.
        chat_template: make plain text into dialogues, see `load_text`.
        activations: see `set_activations`.
        seed: of everything random.
        trust_remote_code: let transformers run code that comes with a model.
    """

    models: tuple[str, ...]
    solvers: tuple[str, ...] = (ALL,)
    bits: tuple[float, ...] = (2.5, 3.0, 3.5, 4.0)
    quantizers: tuple[str, ...] = (DEFAULT_QUANTIZER,)
    damages: tuple[str, ...] = ("fisher",)
    granularities: tuple[Granularity, ...] = ("block",)
    scope: Scope = "model"
    strategies: tuple[int, ...] = DEFAULT_STRATEGIES
    group_size: int = DEFAULT_GROUP_SIZE
    text: str = BUILT_IN_TEXT
    eval_text: str = ""
    chat_template: bool = False
    windows: int = 16
    length: int = 512
    eval_windows: int = 16
    activations: str = "int8"
    seed: int = 0
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse what can be refused before a model is loaded.

        Raises:
            UsageError: an unknown name, no model, solver or budget, or a number out of its range.
        """
        for name in ("models", "solvers", "bits", "quantizers", "damages", "granularities"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UsageError(f"{name} must be named, and each once, not {', '.join(map(str, values)) or 'none'}")
        for budget in self.bits:
            Budget.of_bits(budget, 1)
        for granularity in self.granularities:
            check_strategies(self.strategies, granularity)
        if min(self.windows, self.eval_windows) < 1:
            raise UsageError("windows must be positive")
        if not isinstance(self.text, str) or not isinstance(self.eval_text, str):
            raise UsageError("a benchmark names its texts: a file, python-docs or a data set, as a string")
        check_activations(self.activations)
        self.players(), self.roundings(), self.estimators()

    def players(self) -> dict[str, Solver]:
        """The solvers by name."""
        named = registry.names("solvers") if self.solvers == (ALL,) else self.solvers
        return {name: registry.create("solvers", name) for name in named}

    def roundings(self) -> dict[str, Quantizer]:
        """The quantizers by name."""
        return {name: registry.create("quantizers", name) for name in self.quantizers}

    def estimators(self) -> dict[str, DamageEstimator]:
        """The damage estimators by name."""
        return {name: registry.create("damage", name) for name in self.damages}

    def facts(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


QUICK: dict[str, Any] = {
    "solvers": ("lagrangian", "nash", "uniform"),
    "bits": (3.0, 4.0),
    "windows": 4,
    "eval_windows": 4,
}
"""What the quick profile changes: minutes instead of an hour."""

BESIDE_ORIGINAL: dict[str, Any] = {"solvers": ("nash", "quantile", "uniform"), "bits": (3.0, 4.0)}
"""Packed models beside the methods of `nash_swarm.suite.original`."""
