"""What is seen of every matrix while the calibration windows walk through a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.collect import collecting, projecting
from nash_swarm.calibration.passes import Placed, WholeModel, stream_of
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.calibration.streaming import BlockStream
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.damage.overflow import check_statistics
from nash_swarm.game.bitgame import Calibration
from nash_swarm.models.modes import inference
from nash_swarm.models.offload import resident
from nash_swarm.models.walk import Matrix


def gather(
    model: Any,
    matrices: Sequence[Matrix],
    calibration: Calibration | None,
    estimator: DamageEstimator,
    loss: list[float],
) -> Iterator[tuple[Matrix, Statistics]]:
    """Every matrix with what was seen of it, freed before the next block is walked.

    Args:
        model: what to walk through.
        matrices: what to watch; the passes that only statistics of others need are left out.
        calibration: the windows; none for an estimator that needs weights only.
        estimator: says what it needs to know.
        loss: the mean loss on the windows is appended if there is a backward walk.
    """
    if estimator.needs == "weights" or calibration is None:
        for matrix in matrices:
            with resident(model, matrix.name):
                yield matrix, Statistics()
        return
    stream = stream_of(model, torch.from_numpy(calibration.tokens.astype(np.int64)))
    placed = Placed.on(stream, matrices)
    backward, stream.sampled = estimator.needs == "gradients", estimator.samples_labels
    together = estimator.projects
    watching = partial(collecting, model, observers=estimator.observers)
    found: dict[str, Statistics]
    with inference(model):
        if backward:
            stream.keep_all()
            with watching(placed.outside) as multiplied:
                loss.append(stream.head_backward())
            for index in reversed(range(len(stream.blocks))):
                inside = placed.inside[index]
                if not inside and isinstance(stream, WholeModel):
                    continue
                with stream.resident(index):
                    with watching(inside) as found:
                        if inside or not together:
                            (stream.forward_kept if together else stream.block_backward)(index)
                    if together:
                        for name, statistics in found.items():
                            check_statistics(name, statistics)
                        _give_factors(found.values(), estimator)
                        with projecting(model, placed.inside[index], found, estimator.observers):
                            stream.block_backward(index)
                    yield from _shared(stream, placed.inside[index], found)
            before = [matrix for matrix in placed.outside if multiplied[matrix.name].outputs is None]
            with watching(placed.tables, lookups=True) as looked_up, watching(before) as found:
                if placed.tables:
                    stream.embed_backward()
            multiplied |= found
        else:
            with watching(placed.tables, lookups=True) as looked_up:
                stream.embed()
            for index in range(len(stream.blocks)):
                if not placed.inside[index] and isinstance(stream, WholeModel):
                    continue
                with stream.resident(index):
                    with watching(placed.inside[index]) as found:
                        stream.forward(index)
                    yield from _shared(stream, placed.inside[index], found)
            with watching(placed.outside) as multiplied:
                stream.head()
        seen = {matrix.name for group in placed.inside for matrix in group}
        for matrix in matrices:
            if matrix.name not in seen:
                joined = _joined(multiplied.get(matrix.name), looked_up.get(matrix.name))
                with resident(model, matrix.name):
                    yield from _shared(stream, [matrix], {matrix.name: joined})


def _give_factors(found: Iterable[Statistics], estimator: DamageEstimator) -> None:
    """What inputs are projected with, once for matrices that read the same ones."""
    factors: dict[int, npt.NDArray[np.float32]] = {}
    for statistics in found:
        if statistics.inputs is not None:
            key = id(statistics.inputs)
            factors[key] = statistics.factor = factors[key] if key in factors else estimator.factor(statistics)


def _shared(
    stream: BlockStream | WholeModel, matrices: Sequence[Matrix], found: Mapping[str, Statistics]
) -> Iterator[tuple[Matrix, Statistics]]:
    """Statistics that know what share of the text's tokens they saw."""
    places = sum(stream.task.places(batch) for batch in stream.batches)
    for matrix in matrices:
        statistics = found[matrix.name]
        statistics.share = statistics.tokens / places
        yield matrix, statistics


def _joined(head: Statistics | None, table: Statistics | None) -> Statistics:
    """A tied matrix was watched in both its uses."""
    if head is None or table is None:
        found = head or table
        assert found is not None
        return found
    return replace(head, lookups=table.lookups, gradients=table.gradients)
