"""What every matrix of a model sees, from plain hooks on the whole model, one window at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


@dataclass
class Seen:
    """Inputs and output gradients of one matrix in one of its uses, (tokens, size) once stacked.

    Attributes:
        inputs: what it multiplied; empty for an embedding.
        index: what was looked up; empty for a multiplication.
        gradients: of the summed loss at its outputs.
    """

    inputs: list[torch.Tensor] = field(default_factory=list)
    index: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)

    def hessian(self) -> npt.NDArray[np.float64]:
        """Mean of x x^T."""
        x = torch.cat(self.inputs).double()
        return (x.T @ x / len(x)).numpy()

    def squares(self) -> npt.NDArray[np.float64]:
        """Sum of squared output gradients, by output."""
        return torch.cat(self.gradients).double().square().sum(0).numpy()

    def counts(self, rows: int) -> npt.NDArray[np.int64]:
        """How often each row was looked up."""
        return torch.bincount(torch.cat(self.index), minlength=rows).numpy()


def watch(model: Any, names: list[str], tokens: npt.NDArray[np.int32]) -> tuple[dict[str, Seen], float]:
    """What the modules `names` saw, by name, and the mean loss."""
    seen = {name: Seen() for name in names}

    def hook(name: str) -> Any:
        def store(module: Any, args: Any, output: torch.Tensor) -> None:
            kind = seen[name]
            if args[0].is_floating_point():
                kind.inputs.append(args[0].detach().flatten(0, -2))
            else:
                kind.index.append(args[0].flatten())
            output.register_hook(lambda gradient: kind.gradients.append(gradient.flatten(0, -2)))

        return store

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    losses = []
    for window in tokens:
        ids = torch.from_numpy(window.astype(np.int64))[None]
        loss = model(ids, labels=ids).loss
        (loss * (len(window) - 1)).backward()
        losses.append(float(loss.detach()))
    for handle in handles:
        handle.remove()
    model.zero_grad(set_to_none=True)
    return seen, float(np.mean(losses))
