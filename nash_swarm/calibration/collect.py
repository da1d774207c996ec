"""Hooks that gather statistics of chosen matrices while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nash_swarm.calibration.statistics import Observer, Statistics
from nash_swarm.models.walk import Matrix


@contextmanager
def collecting(
    model: nn.Module,
    matrices: Sequence[Matrix],
    *,
    lookups: bool = False,
    observers: Sequence[Observer] = (),
) -> Iterator[dict[str, Statistics]]:
    """Statistics by matrix name, filled while the context is open; gradients too wherever a backward pass reaches.

    Args:
        model: the model, for the path of a tied head.
        matrices: what to watch.
        lookups: watch embeddings' look-ups instead of multiplications; their outputs become leaves of the graph.
        observers: what else to sum up, of matrices that multiply.
    """
    found = {matrix.name: Statistics() for matrix in matrices}
    inputs = _SharedInputs()
    if lookups:
        with watching_lookups(matrices, lambda matrix, index, rows: _look_up(found[matrix.name], matrix, index, rows)):
            yield found
        return
    handles = []
    for matrix in matrices:
        module = model.get_submodule(matrix.head) if matrix.head else matrix.module
        handles.append(module.register_forward_hook(_linear_hook(found[matrix.name], inputs, observers)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def projecting(
    model: nn.Module,
    matrices: Sequence[Matrix],
    found: Mapping[str, Statistics],
    observers: Sequence[Observer] = (),
) -> Iterator[None]:
    """Adds output gradients and what `Statistics.projected` is of to statistics whose inputs are complete.

    Args:
        model: the model, for the path of a tied head.
        matrices: what to watch.
        found: their statistics by matrix name; those without a factor only get output gradients.
        observers: what else to sum up of output gradients.
    """
    inputs = _SharedProjections()

    def hook(statistics: Statistics) -> Any:
        def watch(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                return
            _watch_gradients(statistics, output, observers)
            if statistics.factor is not None:
                projected = inputs.project(args[0], statistics)
                output.register_hook(lambda gradient: statistics.add_projected(gradient, projected))

        return watch

    handles = []
    for matrix in matrices:
        module = model.get_submodule(matrix.head) if matrix.head else matrix.module
        handles.append(module.register_forward_hook(hook(found[matrix.name])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SharedProjections:
    """Siblings that read the same tensor and share a factor share the product of both."""

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, Any, torch.Tensor] | None = None

    def project(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        if self._last is None or x is not self._last[0] or statistics.factor is not self._last[1]:
            self._last = x, statistics.factor, statistics.project(x)
        return self._last[2]


class _SharedInputs:
    """Siblings that read the same tensor (q/k/v, gate/up) share one second-moment matrix."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None
        self._statistics: Statistics | None = None

    def add(self, x: torch.Tensor, statistics: Statistics) -> None:
        if self._statistics is not None and x is self._last:
            statistics.inputs, statistics.tokens = self._statistics.inputs, self._statistics.tokens
        else:
            statistics.add_inputs(x)
            self._last, self._statistics = x, statistics


def _linear_hook(statistics: Statistics, inputs: _SharedInputs, observers: Sequence[Observer]) -> Any:
    def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        inputs.add(args[0], statistics)
        for observer in observers:
            if observer.of == "inputs":
                statistics.observe(observer, args[0])
        if output.requires_grad:
            _watch_gradients(statistics, output, observers)

    return hook


def _watch_gradients(statistics: Statistics, output: torch.Tensor, observers: Sequence[Observer]) -> None:
    output.register_hook(statistics.add_output_gradients)
    for observer in observers:
        if observer.of == "gradients":
            output.register_hook(partial(statistics.observe, observer))


def _look_up(statistics: Statistics, matrix: Matrix, index: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    statistics.add_lookups(index, matrix.shape[0])
    if not torch.is_grad_enabled():
        return rows
    leaf = rows.detach().requires_grad_()
    leaf.register_hook(statistics.add_lookup_gradients)
    return leaf


class watching_lookups(TorchFunctionMode):
    """Context in which every look-up in one of some matrices, by whatever module, goes through `watch`.

    Not hooks on the modules: what OPT's positions are called with are no indices, and what Gemma's embedding returns
    are not the rows as they are stored.

    Args:
        matrices: embeddings.
        watch: gets the matrix, the indices and the rows; what it returns takes the rows' place.
    """

    def __init__(
        self, matrices: Sequence[Matrix], watch: Callable[[Matrix, torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self._matrices, self._watch = matrices, watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        result = func(*args, **(kwargs or {}))
        if func is not functional.embedding:
            return result
        matrix = next((matrix for matrix in self._matrices if matrix.module.weight is args[1]), None)
        return result if matrix is None else self._watch(matrix, args[0], result)
