"""A memory budget: how many bits the whole packed model may take on disk."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from nash_swarm import arguments
from nash_swarm.errors import BudgetError, UsageError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LARGEST = 1e15
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|B)\s*$", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """Bytes of a size: a number of bytes, or text such as ``"60MB"`` (10**6) or ``"60MiB"`` (2**20).

    Raises:
        UsageError: the text is not a size.
    """
    given = f"{size}B" if isinstance(size, Integral) and not isinstance(size, bool) else size
    match = _SIZE.match(given) if isinstance(given, str) else None
    if match is None or not 0 < float(match[1]) < _LARGEST:
        raise UsageError(f"cannot read the size {size!r}; write it like 60MB, 750KB or 1.5GiB")
    return math.floor(float(match[1]) * _UNITS[match[2].upper()])


@dataclass(frozen=True)
class Budget:
    """A limit on the size of everything written to disk for the model.

    Attributes:
        total_bits: the limit in bits, fixed cost (headers, norms, config) included.
        label: how the user said it, e.g. ``"3.0 bits/param"`` or ``"60MB"``.
    """

    total_bits: int
    label: str

    @classmethod
    def of_bits(cls, bits: float, parameters: int) -> Budget:
        """`bits` per parameter, for a model of `parameters` unique parameters (tied tensors once).

        Raises:
            UsageError: `bits` is not a positive number up to 64.
        """
        if not isinstance(bits, Real) or isinstance(bits, bool) or not math.isfinite(bits) or bits <= 0:
            raise UsageError(f"bits per parameter must be a positive number, not {arguments.shown(bits)}")
        if bits > 64:
            raise UsageError(f"{bits:g} bits per parameter are more than any model has")
        return cls(math.floor(bits * parameters), f"{bits:g} bits/param")

    @classmethod
    def of_size(cls, size: str | int) -> Budget:
        """A file size: bytes, or text such as ``"60MB"`` (10**6) or ``"60MiB"`` (2**20).

        Raises:
            UsageError: the text is not a size.
        """
        return cls(parse_size(size) * 8, size.strip() if isinstance(size, str) else f"{size}B")

    @classmethod
    def of(cls, parameters: int, bits: float | None = None, size: str | int | None = None) -> Budget:
        """The budget from exactly one of `bits` (per parameter) and `size`.

        Raises:
            UsageError: both or neither were given.
        """
        if (bits is None) == (size is None):
            raise UsageError("give the budget once: either bits per parameter (--bits 3.0) or a size (--size 60MB)")
        return cls.of_bits(bits, parameters) if bits is not None else cls.of_size(size)  # type: ignore[arg-type]

    def require(self, smallest_bits: int, parameters: int, strategies: Sequence[int]) -> None:
        """Refuse to be smaller than `smallest_bits`.

        Raises:
            BudgetError: it is; the message names the smallest feasible budget.
        """
        if self.total_bits < smallest_bits:
            per = f" = {math.ceil(smallest_bits / parameters * 1e4) / 1e4:.4f} bits/param" if parameters else ""
            raise BudgetError(
                f"{self.label} is too small: the smallest feasible budget for this model and these strategies "
                f"{list(strategies)} is {-(-smallest_bits // 8)} bytes{per}"
            )
