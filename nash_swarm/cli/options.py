"""Options that several commands share, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nash_swarm.errors import UsageError
from nash_swarm.names import GRANULARITIES, LEVELS, SCOPES, Granularity, Levels, Scope

if TYPE_CHECKING:
    from nash_swarm.game.rules import Rules

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory, hub id, .gguf file, or the built-in demo model 'smollm2'.")
]
Packed = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a packed model.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write.")]
Bits = Annotated[
    float | None,
    typer.Option(help="Budget in bits per parameter, everything on disk included (tokenizer files are not)."),
]
Size = Annotated[str | None, typer.Option(help="Budget as a file size instead, e.g. 60MB.")]
SolverName = Annotated[str, typer.Option("--solver", help="Who allocates; see `nash-swarm solvers`.")]
QuantizerName = Annotated[str, typer.Option("--quantizer", help="How weights are rounded; see `nash-swarm solvers`.")]
DamageName = Annotated[str, typer.Option("--damage", help="How damage is estimated; see `nash-swarm solvers`.")]
GRAINS = "What an agent is: layer, block (a column group), tile, or parameter"
Grain = Annotated[str, typer.Option("--granularity", help=f"{GRAINS}.")]
Widths = Annotated[
    str,
    typer.Option(
        "--strategies",
        help="Bit-widths agents may choose from, of 2,3,4,5,6,8,16. Leaving out 3, 5 and 6 is costly: "
        "with 2,4,8 alone a mix at 3.2 bits does worse than uniform 3 bits.",
    ),
]
TextSource = Annotated[
    str,
    typer.Option(
        "--text",
        help="Text file, JSON lines with text or messages, 'python-docs' (on every machine), or data set "
        "ID:CONFIG:SPLIT:COLUMN.",
    ),
]
ChatTemplate = Annotated[
    bool,
    typer.Option(
        "--chat-template",
        help="Put plain text through the model's chat template: turns begin with User: or Assistant:, or paragraphs "
        "take turns. Messages of JSON lines always go through it.",
    ),
]
ScopeName = Annotated[
    str,
    typer.Option("--scope", help="What is quantized and counted: model, or linear (block linears only, as in papers)."),
]
SPACING = "Where the values of codes lie: uniform, or normal, as suits normally distributed weights"
Spacing = Annotated[str | None, typer.Option("--levels", help=f"{SPACING}; normal by default, but for single weights.")]
GroupSize = Annotated[int, typer.Option("--group-size", help="Columns that share a scale and zero-point per row.")]
Windows = Annotated[int, typer.Option("--windows", min=1, help="Calibration windows of 512 tokens.")]
EvalWindows = Annotated[
    int, typer.Option("--eval-windows", min=0, help="Held-out windows of 512 tokens to evaluate on; 0 for none.")
]
Keep = Annotated[
    list[str] | None, typer.Option("--keep", metavar="NAME=BITS", help="Pin tensors to a width, e.g. lm_head=8.")
]
Forbid = Annotated[
    list[str] | None, typer.Option("--forbid", metavar="NAME=BITS,BITS", help="Widths tensors may not get.")
]
Fuse = Annotated[
    list[str] | None,
    typer.Option("--fuse", metavar="NAME,NAME", help="Siblings that must share widths, e.g. gate_proj,up_proj."),
]
Rounds = Annotated[
    int, typer.Option("--rounds", min=0, help="Measure again at the packed model and play again, so often.")
]
EffortName = Annotated[
    str,
    typer.Option(
        "--effort",
        help="Minutes for quality: fast (8 windows, no contest), default (16, rounded with 32), or best (32, rounded "
        "with 128, no contest, the packed model tuned against the original).",
    ),
]
Contest = Annotated[
    bool | None,
    typer.Option(
        "--contest/--no-contest",
        help="Also pack uniform and quantile, try all on calibration text held out from the game, keep the best; "
        "the effort's choice by default.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random; every command takes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars; every command takes it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output folder that is not empty.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Read a model that needs more memory (default: than is free) from its directory block by block, e.g. 6GB.",
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let transformers run Python code that comes with the model.")
]


def read_widths(text: str) -> tuple[int, ...]:
    """`"2,3,4"` as a tuple.

    Raises:
        UsageError: not a comma-separated list of whole numbers.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"cannot read the strategies {text!r}; write them like 2,3,4,5,6,8") from None


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
