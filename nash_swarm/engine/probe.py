"""Kernels are tried on numbers before they are used: they must give what the module's own `forward` gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nash_swarm.engine.draw import Draw, NotFused
from nash_swarm.engine.fused import Fused
from nash_swarm.errors import NashSwarmError
from nash_swarm.quantizers.runtime.modules import PackedWeight

TOLERANCE = 0.02
"""Relative to the length of the module's own answer. Inputs rounded to 8 bits jump by a step where the last bit of a
norm differs, which comes to a few thousandths; other formulas differ by tens of percent."""
FAR = 1 << 20
"""A place in a text at which modules that treat far tokens otherwise give another answer."""
_INSIGNIFICANT = frozenset({"layer_idx", "training", "matrix"})


def refusal(module: Fused) -> str | None:
    """Why a module keeps to its own code; `None` if the kernels give the same.

    Raises:
        NashSwarmError: a packed matrix in it is damaged.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_cpu:
            return f"it is on the device {tensor.device}"
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            return f"it computes in {str(tensor.dtype).removeprefix('torch.')}"
    try:
        with torch.no_grad(), _evaluating(module):
            worst = _worst(module.trial(Draw()))
    except NotFused as reason:
        return str(reason)
    except NashSwarmError:
        raise
    except Exception as error:  # a forward of another kind trips over whatever it is not made for
        return f"its own code cannot be tried on one token ({type(error).__name__}: {error})"
    return None if worst <= TOLERANCE else f"its own code gives something else (by {worst:.1%})"


def _worst(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    worst = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            return float("inf")
        error = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
        worst = max(worst, error if error == error else float("inf"))
    return worst


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(each, each.training) for each in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for each, training in modes:
            each.training = training


def signature(module: nn.Module) -> tuple[Any, ...]:
    """Shapes, kinds and settings of all parts: modules that share them differ in weights alone; one trial will do.

    Settings that are read from the model's configuration are the same for all of its modules, or go by `layer_types`.
    """
    return tuple((path, type(part), _shape(part), _settings(part)) for path, part in module.named_modules())


def _shape(part: nn.Module) -> tuple[Any, ...]:
    if isinstance(part, PackedWeight):
        return part.layout.rows, part.layout.columns, part.layout.format.name, getattr(part, "activations", "")
    return tuple((name, tuple(p.shape), p.dtype, p.device) for name, p in part.named_parameters(recurse=False))


def _settings(part: nn.Module) -> tuple[Any, ...]:
    plain = (int, float, str, bool, type(None))
    values = vars(part).items()
    return tuple(sorted((k, repr(v)) for k, v in values if isinstance(v, plain) and k not in _INSIGNIFICANT))
