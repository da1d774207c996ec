"""Which instructions the kernels are made of: AVX-512 VNNI, AVX2, or nothing that not every CPU has.

`NASH_SWARM_KERNELS` forces one of them. Otherwise the best one is taken that Numba generates code for, which is the CPU
that runs it unless `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` say otherwise.
"""

from __future__ import annotations

import os
from functools import cache

from nash_swarm.errors import UsageError

VARIABLE = "NASH_SWARM_KERNELS"
NEEDS: dict[str, frozenset[str]] = {
    "avx512vnni": frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni"}),
    "avx2": frozenset({"avx2", "fma"}),
    "generic": frozenset(),
}
"""CPU features that each path needs, best path first."""
NAMES = tuple(NEEDS)
AVX512VNNI, AVX2, GENERIC = range(len(NAMES))
"""Paths as kernels know them: indices into `NAMES`."""


@cache
def features() -> frozenset[str]:
    """The CPU features that Numba generates code for."""
    from numba.core.registry import cpu_target

    listed = cpu_target.target_context.codegen().magic_tuple()[2]
    return frozenset(part[1:] for part in str(listed).split(",") if part.startswith("+"))


def available() -> tuple[str, ...]:
    """Paths that can run here, best first."""
    return tuple(name for name, needed in NEEDS.items() if needed <= features())


def choose(name: str | None = None) -> int:
    """The path called `name`, by default what the environment says, by default the best one; an index into `NAMES`.

    Raises:
        UsageError: there is no such path, or this CPU lacks its instructions.
    """
    wanted = name or os.environ.get(VARIABLE) or available()[0]
    if wanted not in available():
        raise UsageError(
            f"kernels {wanted!r} (argument or {VARIABLE}) cannot run here; choose one of {', '.join(available())}"
        )
    return NAMES.index(wanted)
