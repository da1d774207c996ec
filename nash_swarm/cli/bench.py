"""`nash-swarm bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nash_swarm.cli import early, options
from nash_swarm.errors import UsageError
from nash_swarm.files.named import require_source
from nash_swarm.names import ACTIVATIONS, DEFAULT_GROUP_SIZE, DEFAULT_QUANTIZER, PROTOCOLS

_COMPARED = "What is compared"
_SHOWN = ("method", "bits", "bytes", "delta_loss", "perplexity", "kl", "top1")


def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Directories, hub ids, .gguf files, or the demo model 'smollm2'."),
    ],
    *,
    solvers: Annotated[
        str | None,
        typer.Option(
            "--solvers",
            metavar="NAME,NAME",
            help="Names with commas between, or 'all'.",
            show_default="all",
            rich_help_panel=_COMPARED,
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits",
            metavar="N,N",
            help="Budgets in bits per parameter.",
            show_default="2.5,3,3.5,4",
            rich_help_panel=_COMPARED,
        ),
    ] = None,
    quantizer: Annotated[
        str,
        typer.Option(
            "--quantizer",
            metavar="NAME,NAME",
            help="Rounding methods, with commas between.",
            rich_help_panel=_COMPARED,
        ),
    ] = DEFAULT_QUANTIZER,
    damage: Annotated[
        str,
        typer.Option(
            "--damage",
            metavar="NAME,NAME",
            help="Damage estimators, with commas between.",
            rich_help_panel=_COMPARED,
        ),
    ] = "fisher",
    granularity: Annotated[
        str,
        typer.Option(
            "--granularity",
            metavar="NAME,NAME",
            help="What an agent is: layer, block, tile or parameter, with commas between.",
            rich_help_panel=_COMPARED,
        ),
    ] = "block",
    peers: Annotated[
        Path | None,
        typer.Option(
            "--peers", metavar="CSV", help="Results of other tools, shown beside ours.", rich_help_panel=_COMPARED
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="'nash-swarm', or 'original': first the methods of the document this project began with, as they were "
            "and with everything counted; solvers nash,quantile,uniform and bits 3,4 unless told otherwise.",
            rich_help_panel=_COMPARED,
        ),
    ] = PROTOCOLS[0],
    text: options.TextSource = "python-docs",
    chat_template: options.ChatTemplate = False,
    eval_text: Annotated[
        str,
        typer.Option(
            "--eval-text",
            metavar="TEXT",
            help="Text that losses are of.",
            show_default="what is held out of --text",
            rich_help_panel=options.TEXT,
        ),
    ] = "",
    windows: Annotated[
        int | None,
        typer.Option(
            "--windows",
            min=1,
            metavar="N",
            help="Calibration windows.",
            show_default="16",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    eval_windows: Annotated[
        int | None,
        typer.Option(
            "--eval-windows",
            min=1,
            metavar="N",
            help="Windows that losses are of.",
            show_default="16",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    length: Annotated[
        int, typer.Option("--length", metavar="N", help="Tokens of a window.", rich_help_panel=options.TEXT)
    ] = 512,
    scope: options.ScopeName = "model",
    strategies: options.Widths = "2,3,4,5,6,8",
    group_size: options.GroupSize = DEFAULT_GROUP_SIZE,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Minutes: two budgets, three solvers and 4 windows unless told otherwise.",
            rich_help_panel=options.QUALITY,
        ),
    ] = False,
    activations: Annotated[
        str,
        typer.Option(
            "--activations",
            metavar="NAME",
            help=f"Inputs of packed matrices: {' or '.join(ACTIVATIONS)}.",
            rich_help_panel=options.QUALITY,
        ),
    ] = ACTIVATIONS[0],
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            metavar="N",
            help="Cells at a time; each holds the model. -1: one a core.",
            rich_help_panel=options.QUALITY,
        ),
    ] = 1,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="Of joblib: loky, threading, multiprocessing, dask, ray.",
            rich_help_panel=options.QUALITY,
        ),
    ] = "loky",
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
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
) -> None:
    """Compare solvers: measure each MODEL once, then solve, pack and evaluate every cell of solvers x budgets.

    Every finished cell is kept in REPORT: a run that was killed repeats nothing. Writes results.csv, results.json,
    report.md, table.tex, report.html and figures.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol named {protocol!r}; there are {', '.join(PROTOCOLS)}")
    given: dict[str, Any] = {
        "solvers": None if solvers is None else _names(solvers),
        "bits": None if bits is None else options.read_budgets(bits),
        "windows": windows,
        "eval_windows": eval_windows,
    }
    given = {name: value for name, value in given.items() if value is not None}
    grains = tuple(options.read_granularity(name) for name in _names(granularity))
    within = options.read_scope(scope)
    widths = options.read_widths(strategies)
    if given.get("solvers") != ("all",):
        early.check_names("solvers", given.get("solvers", ()))
    early.check_names("quantizers", _names(quantizer))
    early.check_names("damage", _names(damage))
    early.check_budgets(given.get("bits", ()))
    for grain in grains:
        early.check_agents(widths, grain, group_size, None)
    if activations not in ACTIVATIONS:
        raise UsageError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}")

    for model in models:
        require_source(model)

    import shlex
    import sys
    from dataclasses import replace

    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.files.places import check_no_input, source_places
    from nash_swarm.suite.folder import FILES, check_report_folder
    from nash_swarm.suite.original.running import run_original
    from nash_swarm.suite.peers import read_peers
    from nash_swarm.suite.running import run
    from nash_swarm.suite.settings import BESIDE_ORIGINAL, QUICK, Settings
    from nash_swarm.suite.tables import by_model
    from nash_swarm.suite.writing import write_report

    chosen: dict[str, Any] = dict(QUICK) if quick else {}
    if protocol == "original":
        chosen |= BESIDE_ORIGINAL
    chosen |= given
    settings = Settings(
        tuple(models), quantizers=_names(quantizer), damages=_names(damage),
        granularities=grains,
        scope=within, strategies=widths, group_size=group_size,
        text=text, eval_text=eval_text, chat_template=chat_template, length=length, activations=activations, seed=seed,
        trust_remote_code=trust_remote_code, **chosen,
    )  # fmt: skip
    check_report_folder(output)
    for name in FILES:
        if (output / name).is_file():
            check_no_input(output / name, source_places(text, eval_text, peers))
    others = () if peers is None else tuple(read_peers(peers))
    command = shlex.join(["nash-swarm", *sys.argv[1:]])
    found = (run_original if protocol == "original" else run)(
        settings, output, jobs=jobs, backend=backend, command=command, quiet=quiet
    )
    results = replace(found, peers=others)
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


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
