"""Registry of plug-ins: classes of solvers, quantizers, damage estimators and backends by name, from entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from nash_swarm.errors import UsageError

Room = Literal["solvers", "quantizers", "damage", "backends"]
_registered: dict[tuple[Room, str], type[Any]] = {}


@cache
def _installed(room: Room) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"nash_swarm.{room}")}


def register(room: Room, name: str, kind: type[Any]) -> None:
    """Make `kind` available under `name` in this process; packages use an entry point `nash_swarm.<room>` instead.

    Raises:
        UsageError: the name is taken.
    """
    if name in names(room):
        raise UsageError(f"the {room} registry already has a {name!r}")
    _registered[room, name] = kind


def names(room: Room) -> list[str]:
    """All registered names, sorted."""
    return sorted({*_installed(room), *(name for where, name in _registered if where == room)})


def check_name(room: Room, name: str) -> None:
    """Check that a name is registered, without importing its class.

    Raises:
        UsageError: it is not; the message lists the names.
    """
    if name not in names(room):
        raise UsageError(f"no {room.removesuffix('s')} named {name!r}; there are: {', '.join(names(room))}")


def load(room: Room, name: str) -> type[Any]:
    """The class registered under `name`.

    Raises:
        UsageError: the name is not registered; the message lists the names.
    """
    if (room, name) in _registered:
        return _registered[room, name]
    check_name(room, name)
    kind: type[Any] = _installed(room)[name].load()
    return kind


def create(room: Room, name: str, **hyperparameters: Any) -> Any:
    """An instance of the class registered under `name`.

    Raises:
        UsageError: the name is not registered, or its class does not have these hyperparameters.
    """
    kind = load(room, name)
    try:
        return kind(**hyperparameters)
    except TypeError as error:
        raise UsageError(f"{name}: {error}") from None


def resolve(room: Room, chosen: Any, method: str) -> Any:
    """An instance of the class registered under the name `chosen`, or `chosen` itself if it has `method`.

    Raises:
        UsageError: the name is not registered, or `chosen` is neither a name nor an instance.
    """
    if isinstance(chosen, str):
        return create(room, chosen)
    if isinstance(chosen, type) or not callable(getattr(chosen, method, None)):
        kind = f"the class {chosen.__name__}" if isinstance(chosen, type) else f"{type(chosen).__name__}"
        raise UsageError(
            f"{room.removesuffix('s')} must be a name or an instance, not {kind}; there are: {', '.join(names(room))}"
        )
    return chosen


def origin(room: Room, name: str) -> str:
    """The installed package and version that `name` comes from; empty if it was registered in this process."""
    point = _installed(room).get(name)
    return f"{point.dist.name} {point.dist.version}" if point is not None and point.dist is not None else ""
