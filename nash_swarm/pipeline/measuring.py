"""Stage one: from a model and a text to a game. One pass serves every strategy, solver and budget."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments, registry
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.calibration.streaming import check_tokens, token_windows
from nash_swarm.calibration.text import (
    BUILT_IN_TEXT,
    TextSource,
    hint_at_text,
    load_text,
    sample_windows,
    shortage,
    warn_left_out,
)
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.damage.coupling import check_coupled, couple
from nash_swarm.damage.overflow import Overflow, check_damage, stable_attention
from nash_swarm.damage.table import damage_table
from nash_swarm.damage.unreached import judge_unreached, warn_of_unreached
from nash_swarm.errors import UsageError
from nash_swarm.files.arrays import array_digest
from nash_swarm.game.bitgame import BitGame, Calibration
from nash_swarm.models.offload import resident
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.models.tasks import Prediction
from nash_swarm.models.walk import check_weights
from nash_swarm.names import VERSION, Granularity, Levels, Scope
from nash_swarm.pipeline.agents import Agents, find_agents
from nash_swarm.pipeline.gathering import gather
from nash_swarm.pipeline.pieces import Piece, Pieces
from nash_swarm.pipeline.recovery import model_digest
from nash_swarm.progress import working
from nash_swarm.quantizers.formats.base import Format, Layout
from nash_swarm.recipe import DEFAULT


def measure(
    model: Any,
    tokenizer: Any = None,
    *,
    text: TextSource | None = BUILT_IN_TEXT,
    chat_template: bool = False,
    tokens: npt.NDArray[np.int32] | None = None,
    damage: str | DamageEstimator = DEFAULT.measuring.damage,
    granularity: Granularity = DEFAULT.cut.granularity,
    strategies: tuple[int, ...] = DEFAULT.cut.strategies,
    scope: Scope = DEFAULT.cut.scope,
    group_size: int = DEFAULT.cut.group_size,
    levels: Levels | None = None,
    windows: int = DEFAULT.measuring.windows,
    length: int = DEFAULT.measuring.length,
    coupling: bool = False,
    seed: int = 0,
    name: str = "",
    pieces: Pieces | None = None,
    format: Format[Any] | None = None,
    quiet: bool = False,
) -> BitGame:
    """Measure what every agent would suffer and cost with every width.

    Args:
        model: a transformers causal language model in float32, or its `ReferenceModel`; not changed.
        tokenizer: its tokenizer; not needed if `tokens` are given.
        text: a file, ``python-docs``, a data set, a list of documents, or a loaded text, see `load_text`; every fourth
            window of it is left for evaluation.
        chat_template: make plain text into dialogues, shown through the tokenizer's chat template.
        tokens: calibration token ids (windows, length) instead of `text`.
        damage: name or instance of a damage estimator.
        granularity: what an agent is.
        strategies: bit-widths the agents may choose from.
        scope: `model` counts and quantizes everything; `linear` only the linears inside transformer blocks.
        group_size: columns that share a scale and zero-point per row.
        levels: where the values of codes lie: "uniform" for even steps, "normal" as suits normally distributed weights;
            normal by default, but for granularity "parameter".
        windows: calibration windows.
        length: tokens per window; windows that are held out are apart from those of the same length alone.
        coupling: also measure how the damage of agents interacts, see `couple`; not at `parameter` granularity.
        seed: chooses the windows.
        name: what to call the model in reports.
        pieces: where matrices are kept as soon as they are measured, see `kept_pieces`; those that an earlier run with
            the same model, tokens and settings kept there are not measured again, and the game is the same.
        format: what matrices are stored in; by default the native one of `granularity`, `group_size` and `levels`.
        quiet: no progress bars.

    Raises:
        UsageError: unknown estimator, strategies, granularity or levels, a coupling of single weights, or a model that
            cannot be walked.
        DataError: no matrix is reached by the text, weights are not finite, or the text is empty or too short.
        Overflow: gradients, inputs or damage of a matrix are not finite, though the model's answers are.

    Warns:
        CalibrationWarning: the text does not reach a matrix (an expert that no token is sent to, say), which is then
            judged by its weights alone, see `judge_unreached`.
        LeftOutWarning: the text is too short for so many windows, or so long ones, or too large to be used whole.
        TextWarning: a model that talks is calibrated on the built-in text.
    """
    reference = ReferenceModel.of(model)
    model = reference.model
    arguments.tokenizer(tokenizer)
    arguments.whole("the number of windows", windows, 1)
    arguments.whole("length", length, 1)
    arguments.whole("seed", seed, 0)
    check_coupled(coupling, granularity)
    tokens = None if tokens is None else token_windows(tokens)
    estimator: DamageEstimator = registry.resolve("damage", damage, "sensitivity")
    agents = find_agents(
        model, estimator, granularity=granularity, strategies=strategies, scope=scope, group_size=group_size,
        levels=levels, format=format,
    )  # fmt: skip
    check_weights(model)
    calibration: Calibration | None = None
    provenance: dict[str, Any] = {}
    if tokens is None and text is not None and tokenizer is not None:
        loaded = load_text(text, chat_template=chat_template)
        hint_at_text(loaded, tokenizer)
        asked: Any = {"count": windows, "length": length, "part": "calibration", "model": model}
        tokens = sample_windows(loaded, tokenizer, np.random.default_rng(seed), **asked)
        short = shortage(tokens, loaded, **asked)
        warn_left_out(short)
        calibration = Calibration(tokens, loaded.source)
        provenance = {"text": loaded.source, "text_digest": loaded.digest}
        if left_out := [*loaded.left_out, *short]:
            provenance["left_out"] = left_out
    elif tokens is not None:
        calibration = Calibration(tokens, "token ids")
        check_tokens(calibration.tokens, model)
    elif estimator.needs != "weights":
        raise UsageError(
            f"damage {estimator.name!r} needs text and a tokenizer, or token ids; 'magnitude' needs neither"
        )

    found = _Found(agents)
    finished = None
    if pieces is not None:
        values = [
            VERSION, estimator.name, registry.origin("damage", estimator.name), asdict(estimator),
            agents.strategies, [tensor.values() for tensor in agents.tensors], [model_digest(reference)],
            None if calibration is None else array_digest(calibration.tokens),
            {},
        ]  # fmt: skip
        finished = pieces.of(values, found.table.nbytes)
    originals = {matrix.name: matrix for matrix in agents.matrices}
    loss: list[float] = []
    number = 0
    if finished is not None:
        number = finished.most()
        for kept, piece, losses in finished.read():
            if found.misses(kept) and piece.fits(found.layouts[kept], len(agents.strategies)):
                found.take(kept, piece)
                loss = losses
    with working(
        len(agents.matrices), label=f"measure {estimator.name}", unit="matrix", done=len(found.losses), quiet=quiet
    ) as work:
        for stable in (False, True):
            left = [matrix for matrix in agents.matrices if found.misses(matrix.name)]
            if not left:
                break
            loss = []
            try:
                with stable_attention() if stable else nullcontext():
                    for matrix, statistics in gather(model, left, calibration, estimator, loss):
                        layout, piece = found.layouts[matrix.name], Piece(None)
                        if statistics.reached(estimator.needs):
                            weight = originals[matrix.name].weight().contiguous().numpy()
                            piece = _measured(weight, statistics, estimator, layout, agents.strategies)
                            work.update()
                        found.take(matrix.name, piece)
                        number += 1
                        if finished is not None:
                            finished.keep(matrix.name, piece, loss, number)
            except Overflow:
                if stable or estimator.needs != "gradients":
                    raise
        for missed in found.unreached:
            layout = found.layouts[missed]
            with resident(model, missed):
                weight = originals[missed].weight().contiguous().numpy()
            sensitivity = judge_unreached(layout, weight, found.losses)
            rows = damage_table(weight, sensitivity, layout, agents.strategies)
            check_damage(missed, rows)
            found.put(missed, rows, sensitivity.order)
            work.update()
    assert found.taken == originals.keys(), f"not measured: {', '.join(originals.keys() - found.taken)}"
    if found.unreached:
        warn_of_unreached(found.unreached)

    unit = estimator.unit
    if estimator.needs == "gradients":
        unit = reference.task.unit
        if not isinstance(reference.task, Prediction):
            loss = []  # a random direction's, which says nothing
    provenance |= {
        "model": name or getattr(model.config, "name_or_path", "") or type(model).__name__,
        "model_digest": reference.digest,
        "damage": estimator.name,
        "damage_unit": unit,
        "damage_settings": asdict(estimator),
        "granularity": granularity,
        "scope": scope,
        "seed": seed,
        "calibration_tokens": 0 if calibration is None else int(calibration.tokens.size),
        **({"calibration_loss": loss[0]} if loss else {}),
    }
    game = BitGame(
        agents.strategies,
        found.table,
        agents.memory,
        agents.fixed_bits,
        agents.parameters,
        agents.tensors,
        found.permutations,
        calibration,
        provenance,
    )
    return couple(model, game, seed=seed, quiet=quiet)[0] if coupling else game


def _measured(
    weight: npt.NDArray[np.float32], statistics: Statistics, estimator: DamageEstimator, layout: Layout,
    strategies: tuple[int, ...],
) -> Piece:  # fmt: skip
    """What the statistics say of a matrix (rows, columns) that the text reached."""
    sensitivity = estimator.checked(weight, statistics, layout)
    damage = damage_table(weight, sensitivity, layout, strategies)
    check_damage(layout.name, damage)
    return Piece(damage, sensitivity.order, sensitivity.loss_of_all(weight))


class _Found:
    """The tables of a game as its matrices are measured.

    Attributes:
        layouts: of all matrices, by name.
        table: float32 (agents, strategies); one from the start, since joining the matrices' own at the end would hold
            all of them twice.
        permutations: stored orders of columns, int64, by name.
        losses: what losing each matrix would cost, by name.
        taken: names of matrices that are there.
        unreached: names of those that the text did not reach, whose rows of the table are still empty.
    """

    def __init__(self, agents: Agents) -> None:
        self.layouts = {tensor.name: tensor for tensor in agents.tensors}
        self.table = np.empty(agents.memory.shape, np.float32)
        self.permutations: dict[str, npt.NDArray[np.int64]] = {}
        self.losses: dict[str, float] = {}
        self.taken: set[str] = set()
        self.unreached: list[str] = []

    def misses(self, name: str) -> bool:
        """Whether there is a matrix of that name and it is not there yet."""
        return name in self.layouts and name not in self.taken

    def put(self, name: str, damage: npt.NDArray[np.float32], order: npt.NDArray[np.int64] | None) -> None:
        """Take a matrix's damage (agents of the matrix, strategies) and order of columns (columns,)."""
        self.table[self.layouts[name].span] = damage
        if order is not None:
            self.permutations[name] = order

    def take(self, name: str, piece: Piece) -> None:
        """Take what was measured of a matrix."""
        self.taken.add(name)
        if piece.damage is None:
            self.unreached.append(name)
            return
        self.put(name, piece.damage, piece.order)
        self.losses[name] = piece.loss
