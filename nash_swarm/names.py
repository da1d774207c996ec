"""Words users choose from; apart from the code they name, so that the command line need not import it."""

from __future__ import annotations

from typing import Literal, get_args

Granularity = Literal["layer", "block", "tile", "parameter"]
"""What an agent is."""
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)

Levels = Literal["uniform", "normal"]
"""Where the values of codes lie: evenly, or as suits normally distributed weights."""
LEVELS: tuple[Levels, ...] = get_args(Levels)

Scope = Literal["model", "linear"]
"""What is quantized and what the budget counts: everything, or only the linears inside transformer blocks."""

DEFAULT_SOLVER = "nash-swarm"
"""Who allocates unless somebody else is asked for."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

OUTSIDE = "outside"
"""What the layer of a matrix is called that is in none."""
