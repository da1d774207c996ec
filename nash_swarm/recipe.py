"""Every choice of a compression as one value: the only place of defaults. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from nash_swarm import arguments
from nash_swarm.errors import UsageError
from nash_swarm.names import (
    BUILT_IN_TEXT,
    DEFAULT_DAMAGE,
    DEFAULT_GRANULARITY,
    DEFAULT_GROUP_SIZE,
    DEFAULT_QUANTIZER,
    DEFAULT_SOLVER,
    SCOPES,
    Granularity,
    Levels,
    Precision,
    Scope,
    default_levels,
)

if TYPE_CHECKING:
    from nash_swarm.calibration.text import TextSource
    from nash_swarm.damage.base import DamageEstimator
    from nash_swarm.game.rules import Rules
    from nash_swarm.quantizers.rounding.base import Quantizer
    from nash_swarm.solvers.base import Solver


@dataclass(frozen=True)
class Cut:
    """How matrices are cut into agents, and what those may choose from.

    Attributes:
        granularity: what an agent is.
        strategies: bit-widths, ascending.
        scope: `model` counts and quantizes everything; `linear` only the linears inside transformer blocks.
        group_size: columns that share a scale and zero-point per row.
        levels: where the values of codes lie; `None` for normal ones, but even ones where every weight has its own
            width.
    """

    granularity: Granularity = DEFAULT_GRANULARITY
    strategies: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    scope: Scope = "model"
    group_size: int = DEFAULT_GROUP_SIZE
    levels: Levels | None = None

    def checked(self) -> Cut:
        """The same with its levels spelled out and its widths in order.

        Raises:
            UsageError: widths that cannot be packed, levels that do not go with the granularity, a group size that is
                no positive multiple of 32, or an unknown word.
        """
        from nash_swarm.quantizers.formats.known import check_strategies, format_for

        levels = default_levels(self.granularity) if self.levels is None else self.levels
        format_for(self.granularity, levels, self.group_size)
        arguments.choice("scope", self.scope, SCOPES)
        return replace(self, levels=levels, strategies=check_strategies(self.strategies, self.granularity))


@dataclass(frozen=True)
class Measuring:
    """How damage is measured.

    Attributes:
        damage: name or instance of a damage estimator.
        text: calibration text, see `load_text`; every fourth window of it is held out for the evaluation.
        chat_template: make plain text into dialogues, shown through the tokenizer's chat template.
        windows: calibration windows.
        length: tokens of a window.
    """

    damage: str | DamageEstimator = DEFAULT_DAMAGE
    text: TextSource = BUILT_IN_TEXT
    chat_template: bool = False
    windows: int = 16
    length: int = 512


@dataclass(frozen=True)
class Solving:
    """Who allocates which budget under which rules.

    Attributes:
        solver: name or instance.
        bits, size: the budget, exactly one of them, see `solve`.
        rules: pinned and forbidden widths, and layers that must play alike.
        baselines: pack `uniform` and `quantile` too, try all on calibration text held out from the game, and keep the
            best: the result is never worse than they are at the same bytes.
    """

    solver: str | Solver = DEFAULT_SOLVER
    bits: float | None = None
    size: str | int | None = None
    rules: Rules | None = None
    baselines: bool = True


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded.

    Attributes:
        quantizer: name or instance of a rounding method.
        windows: calibration windows that matrices are rounded with; as many as the damage's if that is more.
    """

    quantizer: str | Quantizer = DEFAULT_QUANTIZER
    windows: int = 0


@dataclass(frozen=True)
class Tuning:
    """How a packed model is tuned.

    Attributes:
        steps: steps of Adam.
        batch: windows a step.
        scales: learning rate of scale codes, in sixteenths of an octave.
        zeros: learning rate of zero-points, in steps of their grid.
        dense: learning rate of norms' gains and of biases, in shares of the root mean square of each.
        between: share of the steps in which scales may lie between the packed format's, which are 4.4 % apart.
        warmup: steps over which the rates rise; they then fall along a cosine, to a twentieth.
        held_out: share of the windows that are not trained on and decide which state is kept.
        check: steps between two looks at the held-out windows.
        precision: what activations and products are computed in; scales, zero-points and what else is trained are
            float32 in any case.
        windows: calibration windows that `compress` tunes on.
    """

    steps: int = 100
    batch: int = 4
    scales: float = 0.06
    zeros: float = 0.005
    dense: float = 5e-4
    between: float = 0.6
    warmup: int = 5
    held_out: float = 0.125
    check: int = 25
    precision: Precision = "auto"
    windows: int = 128

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or self.check < 1 or not 0 < self.held_out < 1:
            raise UsageError("tuning needs steps >= 0, batch >= 1, check >= 1 and a held-out share between 0 and 1")
        if self.precision not in get_args(Precision):
            raise UsageError(f"unknown precision {self.precision!r}; choose one of {', '.join(get_args(Precision))}")

    def rate(self, step: int) -> float:
        """What the learning rates are multiplied with at a step."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, self.steps)))
        return min(1.0, (step + 1) / self.warmup) * (0.05 + 0.95 * cosine)


class Options(TypedDict, total=False):
    """The choices of a recipe as flat keyword arguments of `compress`; `None` leaves a choice to the effort."""

    effort: str
    bits: float | None
    size: str | int | None
    solver: str | Solver
    rules: Rules | None
    baselines: bool | None
    contest: bool | None
    quantizer: str | Quantizer | None
    damage: str | DamageEstimator
    text: TextSource
    chat_template: bool
    windows: int | None
    length: int | None
    granularity: Granularity | None
    strategies: tuple[int, ...]
    scope: Scope
    group_size: int | None
    levels: Levels | None
    eval_windows: int
    seed: int


@dataclass(frozen=True)
class Recipe:
    """Every choice of `compress`.

    Attributes:
        cut, measuring, solving, rounding: choices of the stages.
        tuning: how the packed model is tuned; `None` for not at all.
        eval_windows: held-out windows that the result is evaluated on; 0 for none.
        seed: of everything random.
    """

    cut: Cut = field(default_factory=Cut)
    measuring: Measuring = field(default_factory=Measuring)
    solving: Solving = field(default_factory=Solving)
    rounding: Rounding = field(default_factory=Rounding)
    tuning: Tuning | None = None
    eval_windows: int = 16
    seed: int = 0

    def changed(self, options: Mapping[str, Any]) -> Recipe:
        """The recipe with some choices made anew.

        Args:
            options: by the names of `Options`, but `effort`; those that are `None` stay as they are.

        Raises:
            TypeError: there is no such choice.
        """
        made = {name: value for name, value in options.items() if (name, value) != ("contest", None)}
        if "contest" in made:
            made["baselines"] = made.pop("contest")
        if unknown := made.keys() - _PARTS.keys():
            raise TypeError(f"compress() got an unexpected keyword argument {min(unknown)!r}")
        recipe = self
        if any(made.get(name) is not None for name in ("bits", "size")):
            # one budget takes the place of another, whichever way either is given
            recipe = replace(recipe, solving=replace(recipe.solving, bits=None, size=None))
        for name, value in made.items():
            if value is None and name not in _NONE_IS_WRONG:
                continue
            if name == "windows":
                # told of the damage's windows alone, matrices are rounded with the same ones
                recipe = replace(recipe, rounding=replace(recipe.rounding, windows=0))
            part = _PARTS[name]
            recipe = replace(recipe, **(
                {name: value} if part is None else {part: replace(getattr(recipe, part), **{name: value})}
            ))  # fmt: skip
        return recipe

    def checked(self) -> Recipe:
        """The same with defaults that depend on other choices spelled out.

        Raises:
            UsageError: a choice that no model and text can be compressed with.
        """
        from nash_swarm.game.budget import Budget
        from nash_swarm.game.rules import check_rules

        check_rules(self.solving.rules)
        for name, value, least in (
            ("seed", self.seed, 0), ("eval_windows", self.eval_windows, 0),
            ("the number of windows", self.measuring.windows, 1), ("length", self.measuring.length, 1),
            ("the number of windows for rounding", self.rounding.windows, 0),
        ):  # fmt: skip
            arguments.whole(name, value, least)
        if self.tuning is not None:
            arguments.whole("the number of windows for tuning", self.tuning.windows, 2)
        Budget.of(1, self.solving.bits, self.solving.size)
        rounding = replace(self.rounding, windows=max(self.rounding.windows, self.measuring.windows))
        return replace(self, cut=self.cut.checked(), rounding=rounding)


_PARTS: dict[str, str | None] = {
    **dict.fromkeys(("granularity", "strategies", "scope", "group_size", "levels"), "cut"),
    **dict.fromkeys(("damage", "text", "chat_template", "windows", "length"), "measuring"),
    **dict.fromkeys(("solver", "bits", "size", "rules", "baselines"), "solving"),
    "quantizer": "rounding", "eval_windows": None, "seed": None,
}  # fmt: skip
"""The part of a recipe that an option is of; `None` for the recipe itself."""
_NONE_IS_WRONG = ("solver", "damage", "text", "strategies", "scope", "eval_windows", "seed")
"""Options whose `None` is refused by whatever checks them, and is not a default."""

EFFORTS: Mapping[str, Recipe] = {
    "fast": Recipe(measuring=Measuring(windows=8), solving=Solving(baselines=False)),
    "default": Recipe(rounding=Rounding(windows=32)),
    "best": Recipe(
        measuring=Measuring(windows=32), solving=Solving(baselines=False), rounding=Rounding(windows=128),
        tuning=Tuning(steps=128, batch=2),
    ),
}  # fmt: skip
"""How much time a compression may take: recipes by name."""
DEFAULT = EFFORTS["default"]


def find_effort(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if not isinstance(name, str) or name not in EFFORTS:
        raise UsageError(f"unknown effort {name!r}; choose one of {', '.join(EFFORTS)}")
    return EFFORTS[name]
