"""Walking a model block by block over calibration text, so that only one block's statistics are in memory at a time.

Forward: the windows pass through one block after the other. Backward: block inputs are kept from a forward pass, each
block is run again with gradients on, last block first (gradient checkpointing by hand). Peak memory beyond the model is
the kept hidden states, `blocks * tokens * hidden * 4` bytes (one block's worth in forward-only walks), and whatever the
caller collects for one block. Of a model whose weights stay on disk one block is in memory at a time, and the hidden
states of a backward walk are on disk too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.offload import checkpoint_of, mapped, resident
from nash_swarm.models.tasks import task_of
from nash_swarm.models.walk import find_blocks

Hidden = torch.Tensor
_PROBE = 16
"""Tokens that are enough to see what a block gives."""


def check_tokens(tokens: npt.NDArray[np.int32], model: Any) -> None:
    """Hold token ids (windows, length) against a model's vocabulary.

    Raises:
        DataError: an id is outside it.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if not 0 <= tokens.min() <= tokens.max() < vocabulary:
        raise DataError(f"calibration tokens lie outside the vocabulary of {vocabulary}")


def token_windows(tokens: Any) -> npt.NDArray[np.int32]:
    """Token ids from an array, a tensor or nested lists, int32; the shape stays and should be (windows, length).

    Raises:
        UsageError: they are no whole numbers, or rows of unequal lengths.
    """
    wanted = "tokens must be whole numbers of the shape (windows, length)"
    try:
        found = np.asarray(tokens)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{wanted}: {str(error).splitlines()[0]}") from error
    if not found.ndim or not np.issubdtype(found.dtype, np.integer):
        raise UsageError(f"{wanted}, not {found.dtype} {found.shape}")
    if found.size and not -(1 << 31) <= found.min() <= found.max() < 1 << 31:
        raise UsageError(f"{wanted}; {found.max()} is no token id")
    return found.astype(np.int32, copy=False)


class _Stop(Exception):
    """Ends a forward pass once the blocks that matter have been reached."""


class BlockStream:
    """Calibration windows on their way through a model.

    Args:
        model: a transformers model in eval mode whose blocks take and give hidden states, see `stream_of`.
        tokens: token ids (windows, length).
        batch: windows per forward pass.

    Attributes:
        current: number of the batch that runs.
        sampled: gradients are of `Task.sampled_loss`.
    """

    def __init__(self, model: Any, tokens: torch.Tensor, batch: int = 2) -> None:
        self.model, self.task, self.sampled = model, task_of(model), False
        self.current = 0
        self.name, self.blocks = find_blocks(model)
        self.batches = tokens.split(batch)
        self._calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = [[] for _ in self.blocks]
        self._inputs: list[list[Hidden]] = [[] for _ in self.blocks]
        self._outputs: list[Hidden] = []
        self._gradients: list[Hidden] = []
        self._beside = self._outputs_beside()

    def block_prefix(self, index: int) -> str:
        """Path of a block, with a trailing dot."""
        return f"{self.name}.{index}."

    def resident(self, index: int) -> AbstractContextManager[None]:
        """Block `index` in memory for as long as the context is open, whatever the model."""
        return resident(self.model, f"{self.name}.{index}")

    @torch.no_grad()
    def embed(self) -> None:
        """Run the model up to the first block and keep that block's inputs; the start of a forward walk."""
        end = len(self.blocks) - 1

        def stand_in(index: int, hidden: Hidden) -> Hidden:
            if index == end:
                raise _Stop
            return hidden

        for number, batch in enumerate(self.batches):
            self.current = number
            with self._collecting(), self._replaced(stand_in), suppress(_Stop):
                self.model(**self.task.inputs(batch))
        self._outputs = list(self._inputs[0])

    @torch.no_grad()
    def forward(self, index: int, *, advance: bool = True) -> None:
        """Run block `index` on the current hidden states of all batches; with `advance`, its outputs replace them."""
        with self.resident(index):
            for number in range(len(self._outputs)):
                self.forward_batch(index, number, advance=advance)

    @torch.no_grad()
    def forward_batch(self, index: int, number: int, *, advance: bool = True) -> None:
        """The same for one batch; the block is `resident`."""
        result = self._run(index, number, self._outputs[number])
        if advance:
            self._outputs[number] = result

    def advance(self, index: int) -> None:
        """Run block `index` again, as it is now, and take its outputs for the current hidden states."""
        self.forward(index)

    @torch.no_grad()
    def answer(self) -> torch.Tensor:
        """What the model gives for the first batch, block by block."""
        self.embed()
        for index in range(len(self.blocks)):
            self.forward(index)
        return self._head(0, self._outputs[0])

    def window_by_window(self) -> bool:
        """Whether the first dimension of the hidden states, which must have been computed, is that of windows.

        Blocks of Gemma 3n pass on several versions of every token, ahead of the windows.
        """
        return all(len(hidden) == len(batch) for hidden, batch in zip(self._outputs, self.batches, strict=True))

    @torch.no_grad()
    def head(self) -> None:
        """Run what follows the last block on the current hidden states, for its hooks' sake."""
        for number in range(len(self.batches)):
            self._head(number, self._outputs[number])

    @torch.no_grad()
    def keep_all(self) -> None:
        """Run the whole forward pass and keep every block's inputs; the start of a backward walk."""
        self.embed()
        checkpoint = checkpoint_of(self.model)
        for index in range(len(self.blocks)):
            self._inputs[index] = [
                hidden if checkpoint is None else mapped(hidden, checkpoint.scratch) for hidden in self._outputs
            ]
            self.forward(index)

    def head_backward(self) -> float:
        """Gradient of the loss at the last block's output; returns the mean loss on the text."""
        total, count = 0.0, 0
        self._gradients = []
        for number, batch in enumerate(self.batches):
            hidden = self._outputs[number].detach().requires_grad_()
            with torch.enable_grad():
                loss, tokens = self.task.backward(self._head(number, hidden), batch, sampled=self.sampled)
            assert hidden.grad is not None
            self._gradients.append(hidden.grad)
            total += loss
            count += tokens
        self._outputs = []
        return total / count

    @torch.no_grad()
    def forward_kept(self, index: int) -> None:
        """Run block `index` on the inputs that are kept for its backward pass, for its hooks' sake."""
        with self.resident(index):
            for number, kept in enumerate(self._inputs[index]):
                self._run(index, number, kept)

    def block_backward(self, index: int) -> None:
        """Carry the gradient from block `index`'s output to its input, for its hooks' sake; frees the kept input."""
        with self.resident(index):
            for number, kept in enumerate(self._inputs[index]):
                hidden = kept.detach().requires_grad_()
                with torch.enable_grad():
                    self._run(index, number, hidden).backward(self._gradients[number])
                assert hidden.grad is not None
                self._gradients[number] = hidden.grad
        self._inputs[index] = []

    def embed_backward(self) -> None:
        """Carry the gradient on to what precedes the first block; embeddings must have made their outputs leaves.

        One window at a time: position embeddings are looked up once for a whole batch, and their gradients would be
        those of all its windows together.
        """
        windows = [window for batch in self.batches for window in batch.split(1)]
        gradients = [gradient for batch in self._gradients for gradient in batch.split(1)]
        for number, (window, gradient) in enumerate(zip(windows, gradients, strict=True)):
            self.current = number
            reached: list[Hidden] = []

            def first(_: int, hidden: Hidden, reached: list[Hidden] = reached) -> Hidden:
                reached.append(hidden)
                raise _Stop

            with torch.enable_grad(), self._replaced(first):
                try:
                    self.model(**self.task.inputs(window))
                except _Stop:
                    reached[0].backward(gradient)

    @torch.no_grad()
    def _outputs_beside(self) -> int | None:
        """How many outputs a block has beside the hidden states; `None` if it gives those alone, not in a tuple."""
        found: list[int | None] = []

        def look(_module: nn.Module, _args: Any, output: Any) -> None:
            found.append(len(output) - 1 if isinstance(output, tuple) else None)
            raise _Stop

        handle = self.blocks[0].register_forward_hook(look)
        try:
            with suppress(_Stop):
                self.model(**self.task.inputs(self.batches[0][:1, :_PROBE]))
        finally:
            handle.remove()
        return found[0]

    def _replaced(self, stand_in: Callable[[int, Hidden], Hidden]) -> AbstractContextManager[None]:
        return _replaced(self.blocks, stand_in, self._beside)

    def _run(self, index: int, number: int, hidden: Hidden) -> Hidden:
        self.current = number
        args, kwargs = self._calls[index][number]
        return _hidden(self.blocks[index](hidden, *args, **kwargs))

    def _head(self, number: int, last: Hidden) -> torch.Tensor:
        end = len(self.blocks) - 1
        self.current = number
        with self._replaced(lambda index, hidden: last if index == end else hidden):
            return self.task.answer(self.model(**self.task.inputs(self.batches[number])))

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        handles = []
        for index, block in enumerate(self.blocks):

            def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = index) -> None:
                kwargs = dict(kwargs)
                hidden = kwargs.pop("hidden_states") if "hidden_states" in kwargs else args[0]
                self._calls[index].append((args[1:], kwargs))
                if index == 0:
                    self._inputs[0].append(hidden.detach())

            handles.append(block.register_forward_pre_hook(keep, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _replaced(blocks: nn.ModuleList, stand_in: Callable[[int, Hidden], Hidden], beside: int | None) -> Iterator[None]:
    """Blocks whose forward is `stand_in(index, hidden)`; hooks on the blocks still see the real arguments.

    With `beside`, so many times `None` comes with it in a tuple: a model that takes its blocks' first output apart
    would otherwise take the first window of it.
    """
    for index, block in enumerate(blocks):

        def forward(*args: Any, index: int = index, **kwargs: Any) -> Any:
            hidden = stand_in(index, kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])
            return hidden if beside is None else (hidden, *[None] * beside)

        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _hidden(result: Any) -> Hidden:
    hidden: Hidden = result[0] if isinstance(result, tuple) else result
    return hidden
