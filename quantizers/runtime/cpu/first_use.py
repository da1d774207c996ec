"""Says once, before a kernel of ours is compiled rather than read from Numba's cache, that this takes a moment."""

from __future__ import annotations

import logging
from typing import Any

from numba.core import event

_ROOM = "nash_swarm.quantizers"
_log = logging.getLogger("nash_swarm")


class _Listener(event.Listener):
    def __init__(self) -> None:
        self.compiled: list[str] = []
        """Functions of ours that this process has compiled."""

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not (function.__module__ or "").startswith(_ROOM):  # code from exec() has none
            return
        if not self.compiled:
            _log.warning("nash-swarm: compiling kernels, once, takes ten seconds (ahead of time: nash-swarm warmup)")
        self.compiled.append(f"{function.__module__}.{function.__qualname__}")

    def on_end(self, event: Any) -> None:
        pass


listener = _Listener()
event.register("numba:compile", listener)
