"""Which bit-widths agents may be offered."""

from __future__ import annotations

from nash_swarm import arguments
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.native.layout import HALF, SUPPORTED_WIDTHS

DEFAULT_STRATEGIES = (2, 3, 4, 5, 6, 8)


def check_strategies(strategies: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """The strategies in ascending order.

    Raises:
        UsageError: empty, or a width that the packed format does not hold at this granularity.
    """
    strategies = arguments.widths("strategies", strategies)
    known = [bits for bits in SUPPORTED_WIDTHS if granularity != "parameter" or bits != HALF]
    wrong = [bits for bits in strategies if bits not in known]
    if wrong or not strategies:
        raise UsageError(f"strategies must be bit-widths out of {known} at {granularity} granularity, not {wrong}")
    return tuple(sorted(set(strategies)))
