"""What a command can refuse by its words alone, before torch and transformers are imported, which takes seconds.

Everything here is checked again where it is used: these are the same refusals, sooner.
"""

from __future__ import annotations

from collections.abc import Iterable

from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.names import DEFAULT_GRANULARITY, DEFAULT_GROUP_SIZE, EFFORTS, Granularity, Levels, default_levels


def check_budget(bits: float | None, size: str | None) -> None:
    """Refuse a budget that is none, whatever the model.

    Raises:
        UsageError: not exactly one of `bits` and `size`, or one that cannot be read or is not positive.
    """
    from nash_swarm.game.budget import Budget

    Budget.of(1, bits, size)


def check_budgets(bits: Iterable[float]) -> None:
    """Refuse budgets in bits per parameter that are none.

    Raises:
        UsageError: one is no positive number, or larger than any model needs.
    """
    for budget in bits:
        check_budget(budget, None)


def check_size(size: str | None) -> None:
    """Refuse a size that cannot be read.

    Raises:
        UsageError: it cannot.
    """
    from nash_swarm.game.budget import parse_size

    if size is not None:
        parse_size(size)


def check_names(room: registry.Room, names: Iterable[str | None]) -> None:
    """Refuse names that nothing is registered under; `None` stands for a default.

    Raises:
        UsageError: there is such a name; the message lists what there is.
    """
    for name in names:
        if name is not None:
            registry.check_name(room, name)


def check_effort(name: str) -> None:
    """Refuse an unknown effort.

    Raises:
        UsageError: it is unknown.
    """
    if name not in EFFORTS:
        raise UsageError(f"unknown effort {name!r}; choose one of {', '.join(EFFORTS)}")


def check_agents(
    strategies: tuple[int, ...], granularity: Granularity | None, group_size: int | None, levels: Levels | None
) -> None:
    """Refuse agents that no model has.

    Raises:
        UsageError: widths that cannot be packed, levels that do not go with the granularity, or a group size that is
            no positive multiple of 32.
    """
    from nash_swarm.quantizers.formats.known import check_strategies, format_for

    grain = granularity or DEFAULT_GRANULARITY
    check_strategies(strategies, grain)
    format_for(grain, levels or default_levels(grain), DEFAULT_GROUP_SIZE if group_size is None else group_size)
