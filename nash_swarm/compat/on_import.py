"""Registers with transformers the moment it is imported, so that `import nash_swarm` need not import it."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import importlib.abc

_WATCHED = "transformers.quantizers.auto"
_REGISTRAR = "nash_swarm.integrations.transformers.quantizer"


# importlib.abc is not imported, only for the base classes: it takes half the time that `import nash_swarm` takes
class _Loader:
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        importlib.import_module(_REGISTRAR)


class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


def register_when_imported() -> None:
    """Register now if transformers' quantizers are loaded, else as soon as they are."""
    if _WATCHED in sys.modules:
        importlib.import_module(_REGISTRAR)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
