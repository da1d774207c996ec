"""What the caller forbids and demands: pinned widths, forbidden widths, tensors that must agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.arguments import shown, whole, widths
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.reduction import Expand, reduce_game
from nash_swarm.game.tensors import Tensor

VLLM_FUSION = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Sibling layers that vLLM merges into one, and which must therefore share a scheme."""


@dataclass(frozen=True)
class Rules:
    """Restrictions by tensor name.

    A pattern is a glob over the whole name (``model.layers.0.*``) or over its last parts (``down_proj``,
    ``mlp.down_proj``). A tied output head is also found as ``lm_head``.

    Attributes:
        keep: pattern to the one width its agents play.
        forbid: pattern to the widths its agents may not play; those that the game does not have are no concern.
        fuse: sets of sibling layers (last parts of the name, under one parent) whose agents play one width, cell by
            cell of their grids; where these have unequal numbers of rows, column by column; see `VLLM_FUSION`.
    """

    keep: Mapping[str, int] = field(default_factory=dict)
    forbid: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fuse: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        _check_types(self)
        names = [name for siblings in self.fuse for name in siblings]
        if len(set(names)) < len(names) or any(len(siblings) < 2 for siblings in self.fuse):
            raise UsageError("fuse takes sets of two or more layer names, and each name once")

    @classmethod
    def parse(cls, keep: Iterable[str] = (), forbid: Iterable[str] = (), fuse: Iterable[str] = ()) -> Rules:
        """Rules from text such as ``lm_head=8``, ``down_proj=2,3`` and ``q_proj,k_proj,v_proj``.

        Raises:
            UsageError: the text is no rule, or pins one pattern twice.
        """
        pins = [_parse(text) for text in keep]
        if any(len(widths) != 1 for _, widths in pins) or len(dict(pins)) < len(pins):
            raise UsageError("keep takes one width for each pattern, like lm_head=8")
        bans: dict[str, tuple[int, ...]] = {}
        for pattern, banned in map(_parse, forbid):
            bans[pattern] = tuple(dict.fromkeys((*bans.get(pattern, ()), *banned)))
        return cls(
            {pattern: widths[0] for pattern, widths in pins},
            bans,
            tuple(tuple(part.strip() for part in text.split(",")) for text in fuse),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rules:
        """The rules that `to_json` made `values` from."""
        return cls(
            dict(values["keep"]),
            {pattern: tuple(widths) for pattern, widths in values["forbid"].items()},
            tuple(tuple(siblings) for siblings in values["fuse"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The rules as JSON values; they stand in the provenance of an allocation that was made under them."""
        return {
            "keep": dict(self.keep),
            "forbid": {pattern: list(widths) for pattern, widths in self.forbid.items()},
            "fuse": [list(siblings) for siblings in self.fuse],
        }

    def __str__(self) -> str:
        parts = [f"keep {pattern}={width}" for pattern, width in self.keep.items()]
        parts += [f"forbid {pattern}={','.join(map(str, widths))}" for pattern, widths in self.forbid.items()]
        parts += [f"fuse {','.join(siblings)}" for siblings in self.fuse]
        return "; ".join(parts)

    def __bool__(self) -> bool:
        return bool(self.keep or self.forbid or self.fuse)

    def apply(self, game: BitGame) -> tuple[BitGame, Expand]:
        """The game that is left under the rules, and the map from its choices to those of `game`.

        Raises:
            UsageError: a pattern matches no tensor, a width is none of the game's, or siblings cannot be fused.
        """
        if self and not game.tensors:
            raise UsageError("rules go by tensor names, and this game has none")
        allowed, fusion = self._allowed(game), self._fusion(game)
        if allowed is not None:
            self._check_fused(game, allowed)
        return reduce_game(game, allowed, fusion)

    def restrict(self, game: BitGame, choices: npt.NDArray[np.uint8]) -> tuple[BitGame, npt.NDArray[np.uint8]]:
        """The game that is left under the rules, and what a profile of `game` is in it; the inverse of `apply`'s map.

        Raises:
            DataError: the profile breaks the rules.
            UsageError: the rules do not fit the game.
        """
        reduced, expand = self.apply(game)
        fusion = self._fusion(game)
        own = choices
        if fusion is not None:
            fused = np.flatnonzero(fusion >= 0)
            leads = fusion < 0
            leads[fused[np.unique(fusion[fused], return_index=True)[1]]] = True
            own = choices[leads]
        if not np.array_equal(expand(own), choices):
            raise DataError(f"the allocation breaks its own rules ({self})")
        return reduced, own

    def _allowed(self, game: BitGame) -> npt.NDArray[np.bool_] | None:
        if not (self.keep or self.forbid):
            return None
        widths = np.array(game.strategies)
        allowed = np.ones(game.damage.shape, np.bool_)
        for pattern, width in self.keep.items():
            if width not in game.strategies:
                raise UsageError(f"keep {pattern}={width}: the game's widths are {list(game.strategies)}")
            for tensor in _find(game, pattern):
                allowed[tensor.span] &= widths == width
        for pattern, forbidden in self.forbid.items():
            for tensor in _find(game, pattern):
                allowed[tensor.span] &= ~np.isin(widths, forbidden)
        for tensor in game.tensors:
            if not allowed[tensor.start].any():
                raise UsageError(
                    f"no width is left for {tensor.name} ({_agents(tensor)}, widths {list(game.strategies)}): "
                    f"{' and '.join(self._bearing(tensor))} rule out all of them"
                )
        return allowed

    def _bearing(self, tensor: Tensor) -> list[str]:
        """The options that say something of a tensor's widths, as they are typed."""
        found = [f"--keep {pattern}={width}" for pattern, width in self.keep.items() if _matches(tensor, pattern)]
        return found + [
            f"--forbid {pattern}={','.join(map(str, widths))}"
            for pattern, widths in self.forbid.items()
            if _matches(tensor, pattern)
        ]

    def _check_fused(self, game: BitGame, allowed: npt.NDArray[np.bool_]) -> None:
        """Refuse siblings that must share a width and have none in common; all agents of a tensor may play the same."""
        for siblings in self.fuse:
            for family in _families(game, siblings).values():
                rows = [allowed[tensor.start] for tensor in family]
                if np.logical_and.reduce(rows).any():
                    continue
                left = (
                    f"{tensor.name} ({_agents(tensor)}) is left {_widths(game, row)} by "
                    f"{' and '.join(self._bearing(tensor)) or 'no other rule'}"
                    for tensor, row in zip(family, rows, strict=True)
                )
                raise UsageError(
                    f"--fuse {','.join(siblings)}: there is no strategy left that its tensors share: {'; '.join(left)}"
                )

    def _fusion(self, game: BitGame) -> npt.NDArray[np.int32] | None:
        if not self.fuse:
            return None
        fusion = np.full(game.agents, -1, np.int32)
        for siblings in self.fuse:
            families = _families(game, siblings)
            if not families:
                raise UsageError(f"fuse {','.join(siblings)}: no tensor has such a name; {_examples(game)}")
            for family in families.values():
                _fuse(family, fusion)
        return fusion


def check_rules(rules: object) -> None:
    """Refuse what is neither rules nor `None`.

    Raises:
        UsageError: it is something else.
    """
    if rules is not None and not isinstance(rules, Rules):
        raise UsageError(
            f"rules must be nash_swarm.Rules(keep=..., forbid=..., fuse=...) or Rules.parse(...), not {shown(rules)}"
        )


def _check_types(rules: Rules) -> None:
    """Refuse fields of other types than those of `Rules`, which would be found out deep inside a solver.

    Raises:
        UsageError: there is one.
    """
    for name, table in (("keep", rules.keep), ("forbid", rules.forbid)):
        if not isinstance(table, Mapping) or not all(isinstance(pattern, str) for pattern in table):
            raise UsageError(f"{name} must map patterns to widths, like {{'lm_head': 8}}, not {shown(table)}")
    for pattern, width in rules.keep.items():
        whole(f"keep {pattern}", width, 1)
    for pattern, forbidden in rules.forbid.items():
        widths(f"forbid {pattern}", forbidden)
    if isinstance(rules.fuse, str) or not isinstance(rules.fuse, Iterable):
        raise UsageError(f"fuse must hold sets of names, like (('q_proj', 'k_proj'),), not {shown(rules.fuse)}")
    if not all(
        isinstance(siblings, Iterable)
        and not isinstance(siblings, str)
        and all(isinstance(name, str) for name in siblings)
        for siblings in rules.fuse
    ):
        raise UsageError(f"fuse must hold sets of names, like (('q_proj', 'k_proj'),), not {shown(rules.fuse)}")


def _families(game: BitGame, siblings: tuple[str, ...]) -> dict[str, list[Tensor]]:
    """Tensors that have one of the names, by their parent."""
    families: dict[str, list[Tensor]] = {}
    for tensor in game.tensors:
        parent, _, leaf = tensor.name.rpartition(".")
        if leaf in siblings:
            families.setdefault(parent, []).append(tensor)
    return families


def _agents(tensor: Tensor) -> str:
    return f"{tensor.agents:,} agent{'s' * (tensor.agents != 1)}"


def _widths(game: BitGame, allowed: npt.NDArray[np.bool_]) -> str:
    return f"{[width for width, fits in zip(game.strategies, allowed, strict=True) if fits]}"


def _fuse(family: list[Tensor], fusion: npt.NDArray[np.int32]) -> None:
    """Number the agents of siblings in `fusion`: equal numbers play one width."""
    first, *others = family
    for other in others:
        if other.grid[1] != first.grid[1]:
            raise UsageError(
                f"cannot fuse {first.name} and {other.name}: their grids of agents {first.grid} and "
                f"{other.grid} have unequal numbers of columns; leave one out, or measure at layer granularity"
            )
    if others:
        alike = all(other.grid == first.grid for other in others)
        for tensor in family:
            fusion[tensor.span] = first.start + np.arange(tensor.agents) % (first.agents if alike else first.grid[1])


def _parse(text: str) -> tuple[str, tuple[int, ...]]:
    pattern, equals, widths = text.partition("=")
    try:
        numbers = tuple(int(width) for width in widths.split(","))
    except ValueError:
        numbers = ()
    if not (pattern.strip() and equals and numbers):
        raise UsageError(f"cannot read the rule {text!r}; write it like lm_head=8")
    return pattern.strip(), numbers


def _find(game: BitGame, pattern: str) -> list[Tensor]:
    found = [tensor for tensor in game.tensors if _matches(tensor, pattern)]
    if not found:
        raise UsageError(f"no tensor matches {pattern!r}; {_examples(game)}")
    return found


def _matches(tensor: Tensor, pattern: str) -> bool:
    names = (tensor.name, "lm_head") if tensor.kind == "tied" else (tensor.name,)
    return any(fnmatchcase(name, glob) for name in names for glob in (pattern, f"*.{pattern}"))


def _examples(game: BitGame) -> str:
    return f"there are {', '.join(tensor.name for tensor in game.tensors[:3])}, ..."
