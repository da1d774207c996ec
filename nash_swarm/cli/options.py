"""Options that several commands share, and reading them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nash_swarm.errors import UsageError
from nash_swarm.names import GRANULARITIES, LEVELS, SCOPES, Granularity, Levels, Scope
from nash_swarm.recipe import DEFAULT

if TYPE_CHECKING:
    from nash_swarm.game.rules import Rules
    from nash_swarm.solvers.base import Solver

WIDTHS = ",".join(str(bits) for bits in DEFAULT.cut.strategies)
"""The default of `--strategies`."""
WINDOW = f"windows of {DEFAULT.measuring.length} tokens"

LOADING = "Loading the model"
BUDGET = "Budget"
TEXT = "Text"
AGENTS = "What an agent is"
QUALITY = "Speed and quality"
OUTPUT = "Output"
"""Groups of options in the help of commands that have many."""


def not_dash(value: Path | None) -> Path | None:
    """The path of an output, if there is one.

    Raises:
        UsageError: it is the dash that stands for standard output elsewhere.
    """
    if str(value) == "-":
        raise UsageError("results are files and folders, not a stream: name one (./- for one that is called -)")
    return value


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory, hub id, .gguf file, or the built-in demo model 'smollm2'.")
]
Packed = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a packed model.")]
Out = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="OUT", help="Where to write.", callback=not_dash, rich_help_panel=OUTPUT),
]
Bits = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Bits per parameter, everything on disk included (tokenizer files are not).",
        rich_help_panel=BUDGET,
    ),
]
Size = Annotated[
    str | None, typer.Option(metavar="SIZE", help="A file size instead, e.g. 60MB.", rich_help_panel=BUDGET)
]
SolverName = Annotated[
    str,
    typer.Option("--solver", metavar="NAME", help="Who allocates; see `nash-swarm solvers`.", rich_help_panel=QUALITY),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        help="Of a solver that has one (milp); the gap it reached is told.",
        rich_help_panel=QUALITY,
    ),
]
QuantizerName = Annotated[
    str,
    typer.Option(
        "--quantizer",
        metavar="NAME",
        help="How weights are rounded; see `nash-swarm solvers`.",
        rich_help_panel=QUALITY,
    ),
]
DamageName = Annotated[
    str,
    typer.Option(
        "--damage",
        metavar="NAME",
        help="How damage is estimated; see `nash-swarm solvers`.",
        rich_help_panel=QUALITY,
    ),
]
GRAINS = "Layer, block (a column group), tile, or parameter"
Grain = Annotated[str, typer.Option("--granularity", metavar="NAME", help=f"{GRAINS}.", rich_help_panel=AGENTS)]
Widths = Annotated[
    str,
    typer.Option(
        "--strategies",
        metavar="N,N",
        help="Bit-widths agents may choose from, of 2,3,4,5,6,8,16. Leaving out 3, 5 and 6 is costly: "
        "with 2,4,8 alone a mix at 3.2 bits does worse than uniform 3 bits.",
        rich_help_panel=AGENTS,
    ),
]
TextSource = Annotated[
    str,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="File, JSON lines with text or messages, 'python-docs' (on every machine), or data set "
        "ID:CONFIG:SPLIT:COLUMN.",
        rich_help_panel=TEXT,
    ),
]
ChatTemplate = Annotated[
    bool,
    typer.Option(
        "--chat-template",
        help="Put plain text through the model's chat template: turns begin with User: or Assistant:, or paragraphs "
        "take turns. Messages of JSON lines always go through it.",
        rich_help_panel=TEXT,
    ),
]
ScopeName = Annotated[
    str,
    typer.Option(
        "--scope",
        metavar="NAME",
        help="What is quantized and counted: model, or linear (block linears only, as in papers).",
        rich_help_panel=BUDGET,
    ),
]
SPACING = "Where the values of codes lie: uniform, or normal, as suits normally distributed weights"
Spacing = Annotated[
    str | None,
    typer.Option(
        "--levels",
        metavar="NAME",
        help=f"{SPACING}; normal by default, but for single weights.",
        rich_help_panel=AGENTS,
    ),
]
GROUPS = "Columns that share a scale and zero-point per row"
GroupSize = Annotated[int, typer.Option("--group-size", metavar="N", help=f"{GROUPS}.", rich_help_panel=AGENTS)]
Windows = Annotated[
    int,
    typer.Option("--windows", min=1, metavar="N", help=f"Calibration {WINDOW}.", rich_help_panel=TEXT),
]
EvalWindows = Annotated[
    int,
    typer.Option(
        "--eval-windows",
        min=0,
        metavar="N",
        help=f"Held-out {WINDOW} to evaluate on; 0 for none.",
        rich_help_panel=TEXT,
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="NAME=N", help="Pin tensors to a width, e.g. lm_head=8.", rich_help_panel=AGENTS),
]
Forbid = Annotated[
    list[str] | None,
    typer.Option("--forbid", metavar="NAME=N,N", help="Widths tensors may not get.", rich_help_panel=AGENTS),
]
Fuse = Annotated[
    list[str] | None,
    typer.Option(
        "--fuse",
        metavar="NAME,NAME",
        help="Siblings that must share widths, e.g. gate_proj,up_proj.",
        rich_help_panel=AGENTS,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        metavar="N",
        help="Seed of everything random.",
        rich_help_panel=QUALITY,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an existing output: a file, or a folder that nash-swarm wrote.",
        rich_help_panel=OUTPUT,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Read a model that needs more memory (default: than is free) from its directory block by block, e.g. 6GB.",
        rich_help_panel=LOADING,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let transformers run Python code that comes with the model.",
        rich_help_panel=LOADING,
    ),
]


def read_widths(text: str) -> tuple[int, ...]:
    """`"2,3,4"` as a tuple.

    Raises:
        UsageError: not a comma-separated list of whole numbers.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read the strategies {text!r}; write them like {WIDTHS}") from None


def read_budgets(text: str) -> tuple[float, ...]:
    """The budgets that a list such as ``2.5,3,3.5,4`` names.

    Raises:
        UsageError: it is no such list.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read the budgets {text!r}; write them like 2.5,3,3.5,4") from None


def read_rules(keep: list[str] | None, forbid: list[str] | None, fuse: list[str] | None) -> Rules:
    """The rules that the options spell out.

    Raises:
        UsageError: one cannot be read.
    """
    from nash_swarm.game.rules import Rules

    return Rules.parse(keep or (), forbid or (), fuse or ())


def read_solver(name: str, time_limit: float | None) -> Solver | str:
    """The solver as an instance that keeps to the time limit, or its name where no limit is given.

    Raises:
        UsageError: the limit is not positive, or the solver has none.
    """
    if time_limit is None:
        return name
    if not 0 < time_limit < math.inf:
        raise UsageError(f"--time-limit must be a positive number of seconds, not {time_limit:g}")
    from nash_swarm.pipeline.solving import make_solver

    return make_solver(name, time_limit)


def read_granularity(value: str) -> Granularity:
    """The granularity of that name.

    Raises:
        UsageError: there is none.
    """
    return cast(Granularity, _choice("granularity", value, GRANULARITIES))


def read_levels(value: str) -> Levels:
    """The levels of that name.

    Raises:
        UsageError: there are none.
    """
    return cast(Levels, _choice("levels", value, LEVELS))


def read_scope(value: str) -> Scope:
    """The scope of that name.

    Raises:
        UsageError: there is none.
    """
    return cast(Scope, _choice("scope", value, SCOPES))


def _choice(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"--{option} must be one of {', '.join(known)}, not {value!r}")
    return value
