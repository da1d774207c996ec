"""What a benchmark run is asked for: the options of `nash-swarm bench`, so that nothing large is imported here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.names import ACTIVATIONS, DEFAULT_GROUP_SIZE, DEFAULT_QUANTIZER, Granularity, Scope

if TYPE_CHECKING:
    from nash_swarm.damage.base import DamageEstimator
    from nash_swarm.quantizers.rounding.base import Quantizer
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
        text: calibration text.
        chat_template: make plain text into dialogues, see `load_text`.
        eval_text: text that losses are of; if it is the calibration text, the windows that are held out of it.
        windows: windows that damage is measured on.
        eval_windows: windows that losses are of.
        length: tokens of a window of either kind.
        scope, strategies, group_size: see `measure`.
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
    text: str = "python-docs"
    chat_template: bool = False
    eval_text: str = ""
    windows: int = 16
    eval_windows: int = 16
    length: int = 512
    scope: Scope = "model"
    strategies: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    group_size: int = DEFAULT_GROUP_SIZE
    activations: str = ACTIVATIONS[0]
    seed: int = 0
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse what can be refused before a model is loaded, and before torch is imported.

        Raises:
            UsageError: an unknown name, no model, solver or budget, or a number out of its range.
        """
        from nash_swarm.game.budget import Budget
        from nash_swarm.quantizers.formats.known import check_strategies

        for name in ("models", "solvers", "bits", "quantizers", "damages", "granularities"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UsageError(f"{name} must be named, and each once, not {', '.join(map(str, values)) or 'none'}")
        for name in self.solver_names():
            registry.check_name("solvers", name)
        for name in self.quantizers:
            registry.check_name("quantizers", name)
        for name in self.damages:
            registry.check_name("damage", name)
        for budget in self.bits:
            Budget.of_bits(budget, 1)
        for granularity in self.granularities:
            check_strategies(self.strategies, granularity)
        if min(self.windows, self.eval_windows) < 1:
            raise UsageError("windows must be positive")
        if not isinstance(self.text, str) or not isinstance(self.eval_text, str):
            raise UsageError("a benchmark names its texts: a file, python-docs or a data set, as a string")
        if self.activations not in ACTIVATIONS:
            raise UsageError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {self.activations!r}")

    def solver_names(self) -> list[str]:
        """The names of the solvers."""
        return registry.names("solvers") if self.solvers == (ALL,) else list(self.solvers)

    def players(self) -> dict[str, Solver]:
        """The solvers by name."""
        return {name: registry.create("solvers", name) for name in self.solver_names()}

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
