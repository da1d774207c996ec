"""Walking a model that does not come apart into blocks, or through its blocks if it does: `stream_of` chooses."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nash_swarm.calibration.streaming import BlockStream
from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError, NashSwarmError, SlowerWarning, UsageError
from nash_swarm.models.modes import inference
from nash_swarm.models.offload import checkpoint_of, resident
from nash_swarm.models.tasks import task_of
from nash_swarm.models.walk import Matrix, find_stacks

_PROBE = 16
_OTHER_BLOCKS = (TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError)
"""What blocks with another signature raise, or with other values in their arguments than the model passes on."""


@dataclass(frozen=True)
class Placed:
    """Matrices by where a walk meets them.

    Attributes:
        inside: those that multiply inside each block.
        outside: those that multiply before the first block or after the last.
        tables: those that are looked up in; a tied one is also in `outside`.
    """

    inside: list[list[Matrix]]
    outside: list[Matrix]
    tables: list[Matrix]

    @classmethod
    def on(cls, stream: BlockStream | WholeModel, matrices: Iterable[Matrix]) -> Placed:
        """Sort matrices by where a walk meets them."""
        everything = list(matrices)
        multiply = [matrix for matrix in everything if matrix.kind != "embedding"]
        inside = [
            [matrix for matrix in multiply if matrix.name.startswith(stream.block_prefix(index))]
            for index in range(len(stream.blocks))
        ]
        in_blocks = {matrix.name for group in inside for matrix in group}
        return cls(
            inside,
            [matrix for matrix in multiply if matrix.name not in in_blocks],
            [matrix for matrix in everything if matrix.kind in ("embedding", "tied")],
        )


def stream_of(model: Any, tokens: torch.Tensor, batch: int = 2) -> BlockStream | WholeModel:
    """Calibration windows on their way through a model, block by block where that gives what the model gives.

    Tried on a few tokens first: blocks of some architectures pass on more than hidden states (T5's position biases), or
    their model does something between them (RWKV's halving).

    Args:
        model: a transformers model in eval mode.
        tokens: token ids (windows, length).
        batch: windows per forward pass.

    Raises:
        DataError: what the model gives are no numbers.
        UsageError: the model's weights stay on disk, and it does not come apart.
    """
    reason = _mismatch(model, tokens[:2, :_PROBE])
    if reason is None:
        return BlockStream(model, tokens, batch)
    if checkpoint_of(model) is not None:
        raise UsageError(
            f"{type(model).__name__} does not come apart into blocks that can be run alone, so it cannot be read block "
            f"by block: it must fit into memory (--max-memory). {reason}"
        )
    warnings.warn(
        f"{type(model).__name__} is run as a whole once for every block, which is slower than block by block: {reason}",
        SlowerWarning,
        stacklevel=2,
    )
    return WholeModel(model, tokens, batch)


def _mismatch(model: Any, tokens: torch.Tensor) -> str | None:
    """Why blocks run alone do not give what the model gives; `None` if they do."""
    task = task_of(model)
    with torch.no_grad(), inference(model):
        try:
            expected = task.answer(model(**task.inputs(tokens)))
        except RuntimeError:
            if checkpoint_of(model) is None:
                raise
            return "it uses weights of modules that it does not run"  # and which are not read then
        if not torch.isfinite(expected).all():
            raise DataError(
                f"{type(model).__name__} answers with NaN or infinite values: its weights or configuration are damaged"
            )
        if len(find_stacks(model)) > 1:
            return "it has several stacks of blocks"
        try:
            stream = BlockStream(model, tokens)
            got = stream.answer()
        except NashSwarmError:  # weights that cannot be read, or are no numbers
            raise
        except _OTHER_BLOCKS as error:
            check_api(error)
            lines = str(error).strip().splitlines()
            return f"a block cannot be run alone ({type(error).__name__}: {lines[0] if lines else ''})"
    scale = float(expected.abs().max())
    if not stream.window_by_window():
        return "windows cannot be told apart in what its blocks are given"
    if got.shape != expected.shape or not torch.allclose(got, expected, rtol=1e-3, atol=1e-4 * scale):
        return "its blocks alone give other results than the model"
    return None


class _Stop(Exception):
    """Ends a forward pass once the block that matters has run."""


class WholeModel:
    """The interface of `BlockStream`, by running the whole model once for every block.

    Takes the time of `blocks` passes instead of one, and the memory of one batch's activations in all blocks.
    """

    def __init__(self, model: Any, tokens: torch.Tensor, batch: int = 2) -> None:
        self.model, self.task, self.sampled = model, task_of(model), False
        self.places = [f"{name}.{index}" for name, stack in find_stacks(model) for index in range(len(stack))]
        self.batches = tokens.split(batch)
        self.current = 0

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stacks, in the order in which they run."""
        return [self.model.get_submodule(place) for place in self.places]

    def block_prefix(self, index: int) -> str:
        """See `BlockStream.block_prefix`."""
        return f"{self.places[index]}."

    def resident(self, index: int) -> AbstractContextManager[None]:
        """See `BlockStream.resident`."""
        return resident(self.model, self.places[index])

    def embed(self) -> None:
        """Run the model, for its hooks' sake."""
        self._run()

    def forward(self, index: int, *, advance: bool = True) -> None:
        """Run the model as far as block `index`, for its hooks' sake."""

        def stop(*_: object) -> None:
            raise _Stop

        handle = self.blocks[index].register_forward_hook(stop)
        try:
            self._run()
        finally:
            handle.remove()

    def advance(self, index: int) -> None:
        """Nothing: every run starts from the beginning."""

    def head(self) -> None:
        """Run the model, for its hooks' sake."""
        self._run()

    def keep_all(self) -> None:
        """Nothing: every run starts from the beginning."""

    def head_backward(self) -> float:
        """Forward and backward through the model, for its hooks' sake; returns the mean loss."""
        return self._backward(self.batches)

    def forward_kept(self, index: int) -> None:
        """See `BlockStream.forward_kept`."""
        self.forward(index)

    def block_backward(self, index: int) -> None:
        """As `head_backward`."""
        self._backward(self.batches)

    def embed_backward(self) -> None:
        """As `head_backward`, one window at a time for the reason that `BlockStream` gives."""
        self._backward([window for batch in self.batches for window in batch.split(1)])

    @torch.no_grad()
    def _run(self) -> None:
        for number, batch in enumerate(self.batches):
            self.current = number
            with suppress(_Stop):
                self.model(**self.task.inputs(batch))

    def _backward(self, batches: Any) -> float:
        total, count = 0.0, 0
        for number, batch in enumerate(batches):
            self.current = number
            with torch.enable_grad(), _rooted(self.model):
                answer = self.task.answer(self.model(**self.task.inputs(batch)))
                loss, tokens = self.task.backward(answer, batch, sampled=self.sampled)
            total, count = total + loss, count + tokens
        return total / count


@contextmanager
def _rooted(model: nn.Module) -> Iterator[None]:
    """Let gradients reach everything behind an embedding."""

    def root(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output if output.requires_grad else output.detach().requires_grad_()

    handles = [module.register_forward_hook(root) for module in model.modules() if isinstance(module, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
