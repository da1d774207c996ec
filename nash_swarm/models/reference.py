"""The original model as the stages hand it on: prepared once, with what they ask of it again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nash_swarm import arguments
from nash_swarm.models.experts import prepare
from nash_swarm.models.identity import weights_digest
from nash_swarm.models.offload import Checkpoint, checkpoint_of, require_in_memory
from nash_swarm.models.tasks import Task, task_of


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """An original model whose weights do not change while the value lives.

    Attributes:
        model: prepared, in float32; its weights may stay on disk.
    """

    model: Any

    @classmethod
    def of(cls, model: Any) -> ReferenceModel:
        """The value of a model of transformers; a value stays what it is.

        Raises:
            UsageError: what is given is no original model of transformers.
        """
        if isinstance(model, ReferenceModel):
            return model
        arguments.original(model)
        return cls(prepare(model))

    @cached_property
    def task(self) -> Task:
        """What the model is trained to do, and how its answers are compared."""
        return task_of(self.model)

    @cached_property
    def digest(self) -> str:
        """See `weights_digest`."""
        return weights_digest(self.model)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The files its weights are read from block by block; `None` if they are in memory."""
        return checkpoint_of(self.model)

    def require_in_memory(self, what: str) -> None:
        """Refuse `what` if the weights are on disk.

        Raises:
            UsageError: they are.
        """
        require_in_memory(self.model, what)
