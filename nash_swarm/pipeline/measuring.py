"""Stage one: from a model and a text to a game. One pass serves every strategy, solver and budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nash_swarm import registry
from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.damage.coupling import couple
from nash_swarm.damage.overflow import Overflow, check_damage, stable_attention
from nash_swarm.damage.statistics import Statistics
from nash_swarm.damage.table import damage_table, error_signs
from nash_swarm.damage.unreached import judge_unreached, warn_of_unreached
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.text import BUILT_IN_TEXT, Text, choose_windows, cut_windows, load_text
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.game.layout import Kind, TensorLayout
from nash_swarm.game.stencil import Stencil
from nash_swarm.models.architectures import prepare
from nash_swarm.models.identity import weights_digest
from nash_swarm.models.offload import resident
from nash_swarm.models.streaming import check_tokens
from nash_swarm.models.tasks import Prediction, task_of
from nash_swarm.models.walk import Matrix, check_weights, find_matrices
from nash_swarm.names import DEFAULT_GRANULARITY, DEFAULT_GROUP_SIZE, Granularity, Levels, Scope
from nash_swarm.pipeline.agents import DEFAULT_STRATEGIES, Agents, find_agents
from nash_swarm.pipeline.gathering import gather


def measure(
    model: Any,
    tokenizer: Any = None,
    *,
    text: str | Text | None = BUILT_IN_TEXT,
    tokens: npt.NDArray[np.int32] | None = None,
    point: Any = None,
    orders: Mapping[str, npt.NDArray[np.int64]] | None = None,
    damage: str | DamageEstimator = "fisher",
    granularity: Granularity = DEFAULT_GRANULARITY,
    strategies: tuple[int, ...] = DEFAULT_STRATEGIES,
    scope: Scope = "model",
    group_size: int = DEFAULT_GROUP_SIZE,
    levels: Levels | None = None,
    windows: int = 16,
    length: int = 512,
    coupling: bool = False,
    seed: int = 0,
    name: str = "",
    quiet: bool = False,
) -> BitGame:
    """Measure what every agent would suffer and cost with every width.

    Args:
        model: a transformers causal language model in float32; not changed.
        tokenizer: its tokenizer; not needed if `tokens` are given.
        text: a file, ``python-docs``, a data set, or a loaded text; every fourth window of it is left for evaluation.
        tokens: calibration token ids (windows, length) instead of `text`.
        point: a model of the same shape, at whose weights activations and gradients are taken; `model` itself if not
            given.
        orders: column orders to keep, by tensor name (`BitGame.permutations` of an earlier measurement), so that
            agents are the same columns as there.
        damage: name or instance of a damage estimator.
        granularity: what an agent is.
        strategies: bit-widths the agents may choose from.
        scope: `model` counts and quantizes everything; `linear` only the linears inside transformer blocks.
        group_size: columns that share a scale and zero-point per row.
        levels: where the values of codes lie: "uniform" for even steps, "normal" as suits normally distributed weights;
            normal by default, but for granularity "parameter".
        windows: calibration windows.
        length: tokens per window.
        coupling: also measure how the damage of agents interacts: a stencil at `parameter` granularity, in the same
            pass; `couple` afterwards at any other.
        seed: chooses the windows.
        name: what to call the model in reports.
        quiet: no progress bars.

    Raises:
        UsageError: unknown estimator, strategies, granularity or levels, or a model that cannot be walked.
        DataError: no matrix is reached by the text, weights are not finite, or the text is empty or too short.
        Overflow: gradients, inputs or damage of a matrix are not finite, though the model's answers are.

    Warns:
        CalibrationWarning: the text does not reach a matrix (an expert that no token is sent to, say), which is then
            judged by its weights alone, see `judge_unreached`.
    """
    estimator: DamageEstimator = registry.create("damage", damage) if isinstance(damage, str) else damage
    model = prepare(model)
    agents = find_agents(
        model, estimator, granularity=granularity, strategies=strategies, scope=scope, group_size=group_size,
        levels=levels,
    )  # fmt: skip
    check_weights(model)
    stencil = _Stencils(agents, estimator) if coupling and granularity == "parameter" else None
    calibration: Calibration | None = None
    provenance: dict[str, Any] = {}
    if tokens is None and text is not None and tokenizer is not None:
        loaded = load_text(text) if isinstance(text, str) else text
        cut = cut_windows(loaded, tokenizer, length=length, part="calibration", model=model)
        tokens = choose_windows(cut, windows, np.random.default_rng(seed))
        calibration = Calibration(tokens, loaded.source)
        provenance = {"text": loaded.source, "text_digest": loaded.digest}
    elif tokens is not None:
        calibration = Calibration(np.asarray(tokens, np.int32), "token ids")
        check_tokens(calibration.tokens, model)
    elif estimator.needs != "weights":
        raise UsageError(
            f"damage {estimator.name!r} needs text and a tokenizer, or token ids; 'magnitude' needs neither"
        )

    # one table from the start: joining the matrices' tables at the end would hold all of them twice
    table = np.empty(agents.memory.shape, np.float32)
    point = model if point is None else prepare(point)
    looked_at = agents.matrices if point is model else find_matrices(point, scope)

    def walk() -> tuple[dict[str, npt.NDArray[np.int64]], list[float], list[Matrix]]:
        """Fills the table; returns column orders, the mean loss if there is one, and what the text does not reach."""
        permutations: dict[str, npt.NDArray[np.int64]] = {}
        layouts = {tensor.name: tensor for tensor in agents.tensors}
        originals = {matrix.name: matrix for matrix in agents.matrices}
        loss: list[float] = []
        unreached: list[tuple[Matrix, TensorLayout]] = []
        losses: dict[str, float] = {}

        def fill(weight: npt.NDArray[np.float32], sensitivity: Sensitivity, layout: TensorLayout) -> None:
            damage = damage_table(weight, sensitivity, layout, agents.strategies)
            check_damage(layout.name, damage)
            table[layout.span] = damage
            if sensitivity.order is not None:
                permutations[layout.name] = sensitivity.order
            bar.update()

        with tqdm(total=len(agents.matrices), desc=f"measure {estimator.name}", unit="matrix", disable=quiet) as bar:
            for matrix, statistics in gather(
                point, looked_at, calibration, estimator, loss, orders=orders, projects=stencil is None
            ):
                original, layout = originals[matrix.name], layouts.pop(matrix.name)
                if not statistics.reached(estimator.needs):
                    unreached.append((original, layout))
                    continue
                weight = original.weight().contiguous().numpy()
                if stencil is None:
                    sensitivity = estimator.sensitivity(weight, statistics, matrix.kind)
                else:
                    sensitivity = stencil.measure(weight, statistics, matrix.kind, layout)
                if (sensitivity.order is not None) != layout.ordered:
                    raise DataError(f"damage {estimator.name!r}: orders() and sensitivity() disagree on {matrix.name}")
                fill(weight, sensitivity, layout)
                losses[matrix.name] = sensitivity.loss_of_all(weight)
            for original, layout in unreached:
                with resident(model, original.name):
                    weight = original.weight().contiguous().numpy()
                fill(weight, judge_unreached(layout, weight, losses), layout)
        assert not layouts, f"not measured: {', '.join(layouts)}"
        return permutations, loss, [original for original, _ in unreached]

    try:
        permutations, loss, unreached = walk()
    except Overflow:
        if estimator.needs != "gradients":
            raise
        with stable_attention():
            permutations, loss, unreached = walk()
    if unreached:
        warn_of_unreached([original.name for original in unreached])

    unit = estimator.unit
    if estimator.needs == "gradients":
        task = task_of(model)
        unit = task.unit
        if not isinstance(task, Prediction):
            loss = []  # a random direction's, which says nothing
    provenance |= {
        "model": name or getattr(model.config, "name_or_path", "") or type(model).__name__,
        "model_digest": weights_digest(model),
        "damage": estimator.name,
        "damage_unit": unit,
        "damage_settings": asdict(estimator),
        "granularity": granularity,
        "scope": scope,
        "seed": seed,
        "calibration_tokens": 0 if calibration is None else int(calibration.tokens.size),
        **({"calibration_loss": loss[0]} if loss else {}),
    }
    if stencil is not None:
        provenance["coupling"] = {"kind": Stencil.kind}
    game = BitGame(
        agents.strategies,
        table,
        agents.memory,
        agents.fixed_bits,
        agents.parameters,
        agents.tensors,
        permutations,
        calibration,
        provenance,
        None if stencil is None else stencil.result(),
    )
    return couple(model, game, seed=seed, quiet=quiet)[0] if coupling and stencil is None else game


class _Stencils:
    """The stencil of a game of single weights, as its matrices are measured.

    Raises:
        UsageError: the estimator does not know how neighbours interact.
    """

    def __init__(self, agents: Agents, estimator: DamageEstimator) -> None:
        estimator.check_couples()
        self._agents, self._estimator = agents, estimator
        self._signs = np.empty(len(agents.memory), np.uint8)
        self._correlation: dict[str, npt.NDArray[np.float32]] = {}

    def measure(
        self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind, layout: TensorLayout
    ) -> Sensitivity:
        """Take in a matrix; returns what its errors cost."""
        sensitivity, correlation = self._estimator.coupled_sensitivity(weight, statistics, kind)
        self._signs[layout.span] = error_signs(weight, sensitivity.order, layout, self._agents.strategies)
        self._correlation[layout.name] = correlation
        return sensitivity

    def result(self) -> Stencil:
        """The stencil of all matrices."""
        tensors = self._agents.tensors
        every = np.concatenate([self._correlation[tensor.name] for tensor in tensors])
        return Stencil(self._signs, tuple(tensor.grid for tensor in tensors), every)
