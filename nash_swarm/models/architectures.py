"""What is special about particular architectures, by the names of their classes; most need no entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nash_swarm.compat.hf import rescale_rwkv

LEFT_IN_HALF: Mapping[str, tuple[str, ...]] = {
    # their mixers multiply with the weight itself, not with the module: nothing can be watched or packed
    "MambaMixer": ("dt_proj",),
    "FalconMambaMixer": ("dt_proj",),
    "JambaMambaMixer": ("dt_proj",),
}
"""Children that stay at 16 bits, by the class of their parent."""

PLAIN_LINEARS = frozenset({"Linear", "FalconLinear"})
"""Kinds of `nn.Linear` that multiply and add a bias. Others do something of their own (Phimoe's router) and stay."""


SETTLE: Mapping[str, Callable[[Any], None]] = {"RwkvModel": rescale_rwkv}
"""What puts a module, by its class, into the state in which its weights are what it multiplies with; in place."""


def settle_weights(model: Any) -> None:
    """Let modules whose first forward pass changes their weights do so now; the model computes the same as before."""
    for module in model.modules():
        if (settle := SETTLE.get(type(module).__name__)) is not None:
            settle(module)
