"""nash-swarm fits language models into a memory budget.

Groups of weights are agents that bargain for bits until they reach an equilibrium; the allocation is packed into 2 to
8 bits a weight and the model runs::

    import nash_swarm as ns

    game = ns.measure(model, tokenizer, text="corpus.txt")
    allocation = ns.solve(game, bits=3.0)
    packed = ns.pack(model, allocation)
    ns.save(packed, "out")
    model = ns.load("out")

Everything below is loaded on first use, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nash_swarm.integrations.transformers.on_import import register_when_imported

__version__ = "0.2.0"

_HOMES = {
    "measure": "nash_swarm.pipeline.measuring",
    "solve": "nash_swarm.pipeline.solving",
    "pack": "nash_swarm.pipeline.packing",
    "save": "nash_swarm.artifacts.packed_model",
    "load": "nash_swarm.artifacts.packed_model",
    "load_tokenizer": "nash_swarm.artifacts.packed_model",
    "set_activations": "nash_swarm.quantizers.runtime.modules",
    "compress": "nash_swarm.pipeline.compressing",
    "couple": "nash_swarm.damage.coupling",
    "evaluate": "nash_swarm.evaluation",
    "Text": "nash_swarm.evaluation",
    "save_game": "nash_swarm.artifacts.game",
    "load_game": "nash_swarm.artifacts.game",
    "save_allocation": "nash_swarm.artifacts.allocation",
    "load_allocation": "nash_swarm.artifacts.allocation",
    "Allocation": "nash_swarm.game",
    "BitGame": "nash_swarm.game",
    "Budget": "nash_swarm.game",
    "Certificate": "nash_swarm.game",
    "Rules": "nash_swarm.game.rules",
    "NashSwarmError": "nash_swarm.errors",
}

__all__ = [
    "Allocation",
    "BitGame",
    "Budget",
    "Certificate",
    "NashSwarmError",
    "Rules",
    "Text",
    "__version__",
    "compress",
    "couple",
    "evaluate",
    "load",
    "load_allocation",
    "load_game",
    "load_tokenizer",
    "measure",
    "pack",
    "save",
    "save_allocation",
    "save_game",
    "set_activations",
    "solve",
]

if TYPE_CHECKING:
    from nash_swarm.artifacts.allocation import load_allocation, save_allocation
    from nash_swarm.artifacts.game import load_game, save_game
    from nash_swarm.artifacts.packed_model import load, load_tokenizer, save
    from nash_swarm.damage.coupling import couple
    from nash_swarm.errors import NashSwarmError
    from nash_swarm.evaluation import Text, evaluate
    from nash_swarm.game import Allocation, BitGame, Budget, Certificate
    from nash_swarm.game.rules import Rules
    from nash_swarm.pipeline.compressing import compress
    from nash_swarm.pipeline.measuring import measure
    from nash_swarm.pipeline.packing import pack
    from nash_swarm.pipeline.solving import solve
    from nash_swarm.quantizers.runtime.modules import set_activations


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
