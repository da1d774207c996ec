"""What the caller asked for and a game cannot give: parts of sets to fuse, and bits beyond the widest widths."""

from __future__ import annotations

from collections.abc import Sequence

from nash_swarm.game.budget import Budget
from nash_swarm.game.rules import Rules
from nash_swarm.game.tensors import Tensor
from nash_swarm.quantizers.formats.known import strategies_at


def unmet_rules(tensors: Sequence[Tensor], rules: Rules | None) -> list[str]:
    """What of the sets to fuse has no effect, a line each; names that no tensor has at all are refused elsewhere."""
    lines: list[str] = []
    for siblings in () if rules is None else rules.fuse:
        families: dict[str, set[str]] = {}
        for tensor in tensors:
            parent, _, leaf = tensor.name.rpartition(".")
            if leaf in siblings:
                families.setdefault(parent, set()).add(leaf)
        present = set().union(*families.values())
        said = ",".join(siblings)
        if absent := [name for name in siblings if name not in present]:
            lines.append(f"fuse {said}: no layer is called {' or '.join(absent)}")
        alone = [f"{parent}.{leaf}".lstrip(".") for parent, (leaf, *others) in
                 ((parent, sorted(found)) for parent, found in families.items()) if not others]  # fmt: skip
        if alone:
            lines.append(f"fuse {said}: {alone[0]} has no sibling to be fused with{_and_more(alone)}")
    return lines


def unmet_budget(
    budget: Budget, strategies: Sequence[int], largest_bits: int, parameters: int, grain: str
) -> list[str]:
    """What of a budget cannot be used, as one line, or none.

    Args:
        budget: what was asked for.
        strategies: widths, ascending.
        largest_bits: of the file if everything plays the widest.
        parameters: in scope.
        grain: what an agent is; single weights have no 16 bits.
    """
    if budget.total_bits <= largest_bits:
        return []
    wider = [bits for bits in strategies_at(grain) if bits > strategies[-1]]
    advice = f"; add {wider[-1]} to --strategies" if wider else ""
    most = f"{largest_bits / parameters:.2f} bits per parameter" if parameters else f"{largest_bits // 8} bytes"
    return [
        f"the budget of {budget.label} cannot be used: the widest width, {strategies[-1]} bits, takes {most}{advice}"
    ]


def _and_more(names: list[str]) -> str:
    return f", nor have {len(names) - 1} more" if len(names) > 1 else ""
