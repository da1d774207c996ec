"""`nash-swarm bench`: an option for each field of the suite's `Settings`, and those of the run and its report."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from nash_swarm.cli import early, options
from nash_swarm.files.named import require_source
from nash_swarm.names import ACTIVATIONS
from nash_swarm.suite.settings import QUICK, Settings

_COMPARED = "What is compared"
_SHOWN = ("method", "bits", "bytes", "delta_loss", "perplexity", "kl", "top1")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _granularities(text: str) -> tuple[str, ...]:
    return tuple(options.read_granularity(name) for name in _names(text))


def _shown(value: Any) -> str:
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)


def _option(name: str, told: str, panel: str = options.QUALITY, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(name, help=told, rich_help_panel=panel, metavar=metavar, **more)


def _listed(name: str, told: str, metavar: str = "NAME,NAME") -> Any:
    return _option(name, f"{told}, with commas between.", _COMPARED, metavar)


_OPTIONS: dict[str, Any] = {
    "models": Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Directories, hub ids, .gguf files, or the demo model 'smollm2'."),
    ],
    "solvers": _listed("--solvers", "Solvers, or 'all'"),
    "bits": _listed("--bits", "Budgets in bits per parameter", "N,N"),
    "quantizers": _listed("--quantizer", "Rounding methods"),
    "damages": _listed("--damage", "Damage estimators"),
    "granularities": _listed("--granularity", "What an agent is: layer, block, tile or parameter"),
    "text": options.TextSource,
    "chat_template": options.ChatTemplate,
    "eval_text": _option(
        "--eval-text", "Text that losses are of.", options.TEXT, "TEXT", show_default="what is held out of --text"
    ),
    "windows": _option("--windows", "Calibration windows.", options.TEXT, "N", min=1),
    "eval_windows": _option("--eval-windows", "Windows that losses are of.", options.TEXT, "N", min=1),
    "length": _option("--length", "Tokens of a window.", options.TEXT, "N"),
    "scope": options.ScopeName,
    "strategies": options.Widths,
    "group_size": options.GroupSize,
    "activations": _option(
        "--activations", f"Inputs of packed matrices: {' or '.join(ACTIVATIONS)}.", metavar="NAME"
    ),
    "seed": options.Seed,
    "trust_remote_code": options.TrustRemoteCode,
}  # fmt: skip
"""How each field of `Settings` is given; defaults are the fields' own."""
_READ: dict[str, Callable[[Any], Any]] = {
    "models": tuple, "solvers": _names, "bits": options.read_budgets, "quantizers": _names, "damages": _names,
    "granularities": _granularities, "scope": options.read_scope, "strategies": options.read_widths,
}  # fmt: skip
"""How fields whose options are text of another type are read."""


def _parameter(name: str, default: Any) -> inspect.Parameter:
    """The option of a field; one that `--quick` changes is `None` unless it is given."""
    kind, given = _OPTIONS[name], default
    if isinstance(default, tuple):
        given = _shown(default)
    if isinstance(kind, typer.models.OptionInfo):
        if name in QUICK:
            kind.show_default, given = str(given), None
        kind = Annotated[(str if isinstance(given, str) or isinstance(default, tuple) else int) | None, kind]
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=empty if default is MISSING else given, annotation=kind
    )


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `Settings` in the place of its `**given`."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    settings = [_parameter(field.name, field.default) for field in fields(Settings)]
    told: Any = command
    told.__signature__ = inspect.Signature([*settings, *own[:-1]])
    told.__annotations__ = {each.name: each.annotation for each in told.__signature__.parameters.values()}
    return command


@_with_settings
def bench(
    *,
    peers: Annotated[
        Path | None, _option("--peers", "Results of other tools, shown beside ours.", _COMPARED, "CSV")
    ] = None,
    quick: Annotated[
        bool, _option("--quick", "Minutes: two budgets, three solvers and 4 windows unless told otherwise.")
    ] = False,
    jobs: Annotated[int, _option("--jobs", "Cells at a time; each holds the model. -1: one a core.", metavar="N")] = 1,
    backend: Annotated[
        str, _option("--backend", "Of joblib: loky, threading, multiprocessing, dask, ray.", metavar="NAME")
    ] = "loky",
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="REPORT",
            help="Folder of the report; a killed run goes on in it.",
            callback=options.not_dash,
            rich_help_panel=options.OUTPUT,
        ),
    ],
    json: options.Json = False,
    quiet: options.Quiet = False,
    **given: Any,
) -> None:
    """Compare solvers: measure each MODEL once, then solve, pack and evaluate every cell of solvers x budgets.

    Every finished cell is kept in REPORT: a run that was killed repeats nothing. Writes results.csv, results.json,
    report.md, table.tex, report.html and figures.
    """
    told = {name: _READ.get(name, lambda as_is: as_is)(value) for name, value in given.items() if value is not None}
    settings = Settings(**(QUICK if quick else {}) | told)
    settings.check()
    for granularity in settings.granularities:
        early.check_agents(settings.strategies, granularity, settings.group_size, None)
    for model in settings.models:
        require_source(model)

    import shlex
    import sys
    from dataclasses import replace

    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.files.places import check_no_input, source_places
    from nash_swarm.suite.folder import FILES, check_report_folder
    from nash_swarm.suite.peers import read_peers
    from nash_swarm.suite.running import run
    from nash_swarm.suite.tables import by_model
    from nash_swarm.suite.writing import write_report

    check_report_folder(output)
    for name in FILES:
        if (output / name).is_file():
            check_no_input(output / name, source_places(settings.text, settings.eval_text, peers))
    others = () if peers is None else tuple(read_peers(peers))
    command = shlex.join(["nash-swarm", *sys.argv[1:]])
    results = replace(run(settings, output, jobs=jobs, backend=backend, command=command, quiet=quiet), peers=others)
    files = write_report(results, output, overwrite=True)
    if json:
        show.print_json(
            {
                "output": str(output),
                "files": [str(file) for file in files],
                "rows": len(results.rows),
                "failures": len(results.failures),
                **{name: value for name, value in results.facts.items() if name != "settings"},
            }
        )
        return
    if quiet:
        return
    for title, rows in by_model(results.rows).items():
        shown = [[_cell(getattr(row, name)) for name in _SHOWN] for row in rows]
        on = counted(rows[0].tokens, rows[0].eval_text)
        show.print_rich(show.table(f"{title}, on {on}", [name.replace("_", " ") for name in _SHOWN], shown))
    for failure in results.failures:
        show.print_rich(f"{failure['method']} at {failure['bits']:g} bits: {failure['error']}")
    show.print_rich(f"{results.facts['seconds']:.0f} s; open {output / 'report.html'}")


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
