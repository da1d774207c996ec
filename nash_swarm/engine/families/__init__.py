"""Families of decoders by `config.model_type`: the files of this folder, installed packages' and registered ones."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from nash_swarm.engine.family import Family
from nash_swarm.errors import UsageError

_registered: dict[str, Family] = {}


@cache
def _declared() -> dict[str, Family]:
    own = [import_module(f"{__name__}.{each.name}").FAMILY for each in iter_modules(__path__)]
    others = [point.load() for point in entry_points(group="nash_swarm.families")]
    return {kind: family for family in (*others, *own) for kind in family.model_types}


def register(family: Family) -> None:
    """Serve a family in this process; packages use an entry point of the group `nash_swarm.families` instead.

    Raises:
        UsageError: one of its model types is served already.
    """
    for kind in family.model_types:
        if find(kind) not in (None, family):
            raise UsageError(f"there is a decode family of the model type {kind!r} already")
    _registered.update(dict.fromkeys(family.model_types, family))


def find(model_type: str) -> Family | None:
    """The family that a model type belongs to."""
    return _registered.get(model_type) or _declared().get(model_type)
