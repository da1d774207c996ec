"""What third parties need to hold their own plug-ins to the contracts that ours pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nash_swarm.testing.backend_contract import check_backend
    from nash_swarm.testing.damage_contract import check_damage
    from nash_swarm.testing.format_contract import check_format
    from nash_swarm.testing.quantizer_contract import check_quantizer
    from nash_swarm.testing.solver_contract import check_solver

__all__ = ["check_backend", "check_damage", "check_format", "check_quantizer", "check_solver"]


def __getattr__(name: str) -> Any:
    # a solver's contract needs no torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.removeprefix('check_')}_contract"), name)
