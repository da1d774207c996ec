"""The state a model must be in to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def inference(*models: nn.Module) -> Iterator[None]:
    """Models without dropout and without gradients of their parameters; both are as they were afterwards."""
    training = [module for model in models for module in model.modules() if module.training]
    trained = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    for module in training:
        module.training = False
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trained:
            parameter.requires_grad_(True)
