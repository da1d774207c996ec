"""`nash-swarm bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nash_swarm.cli import options
from nash_swarm.names import DEFAULT_GROUP_SIZE, DEFAULT_QUANTIZER

_SHOWN = ("method", "bits", "bytes", "delta_loss", "perplexity", "kl", "top1")


def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Directories, hub ids, .gguf files, or the demo model 'smollm2'."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="REPORT", help="Folder of the report; a killed run goes on in it."),
    ],
    solvers: Annotated[
        str | None, typer.Option("--solvers", help="Names with commas between, or 'all'. [default: all]")
    ] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", help="Budgets in bits per parameter. [default: 2.5,3,3.5,4]")
    ] = None,
    quantizer: Annotated[
        str, typer.Option("--quantizer", help="Rounding methods, with commas between.")
    ] = DEFAULT_QUANTIZER,
    damage: Annotated[str, typer.Option("--damage", help="Damage estimators, with commas between.")] = "fisher",
    granularity: Annotated[
        str, typer.Option("--granularity", help="What an agent is, of layer,block,tile,parameter; commas between.")
    ] = "block",
    strategies: options.Widths = "2,3,4,5,6,8",
    scope: options.ScopeName = "model",
    group_size: options.GroupSize = DEFAULT_GROUP_SIZE,
    text: options.TextSource = "python-docs",
    eval_text: Annotated[
        str, typer.Option("--eval-text", help="Text that losses are of. [default: what is held out of --text]")
    ] = "",
    chat_template: options.ChatTemplate = False,
    windows: Annotated[int | None, typer.Option("--windows", min=1, help="Calibration windows. [default: 16]")] = None,
    eval_windows: Annotated[
        int | None, typer.Option("--eval-windows", min=1, help="Windows that losses are of. [default: 16]")
    ] = None,
    length: Annotated[int, typer.Option("--length", help="Tokens of a window.")] = 512,
    activations: Annotated[
        str, typer.Option("--activations", help="Inputs of packed matrices: int8, int16 or fp32.")
    ] = "int8",
    peers: Annotated[
        Path | None, typer.Option("--peers", metavar="CSV", help="Results of other tools, shown beside ours.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: two budgets, three solvers and 4 windows unless told otherwise.")
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="'nash-swarm', or 'original': first the methods of the document this project began with, as they were "
            "and with everything counted; solvers nash,quantile,uniform and bits 3,4 unless told otherwise.",
        ),
    ] = "nash-swarm",
    jobs: Annotated[int, typer.Option("--jobs", help="Cells at a time; each holds the model. -1: one a core.")] = 1,
    backend: Annotated[
        str, typer.Option("--backend", help="Of joblib: loky, threading, multiprocessing, dask, ray.")
    ] = "loky",
    seed: options.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare solvers: measure each MODEL once, then solve, pack and evaluate every cell of solvers x budgets.

    Every finished cell is kept in REPORT: a run that was killed repeats nothing. Writes results.csv, results.json,
    report.md, table.tex, report.html and figures.
    """
    import shlex
    import sys
    from dataclasses import replace

    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.errors import UsageError
    from nash_swarm.suite.original.running import run_original
    from nash_swarm.suite.peers import read_peers
    from nash_swarm.suite.running import run
    from nash_swarm.suite.settings import BESIDE_ORIGINAL, QUICK, Settings
    from nash_swarm.suite.tables import by_model
    from nash_swarm.suite.writing import write_report

    protocols = {"nash-swarm": run, "original": run_original}
    if protocol not in protocols:
        raise UsageError(f"no protocol named {protocol!r}; there are {', '.join(protocols)}")
    chosen: dict[str, Any] = dict(QUICK) if quick else {}
    if protocol == "original":
        chosen |= BESIDE_ORIGINAL
    given = {
        "solvers": None if solvers is None else _names(solvers),
        "bits": None if bits is None else options.read_budgets(bits),
        "windows": windows,
        "eval_windows": eval_windows,
    }
    chosen |= {name: value for name, value in given.items() if value is not None}
    settings = Settings(
        tuple(models), quantizers=_names(quantizer), damages=_names(damage),
        granularities=tuple(options.read_granularity(name) for name in _names(granularity)),
        scope=options.read_scope(scope), strategies=options.read_widths(strategies), group_size=group_size,
        text=text, eval_text=eval_text, chat_template=chat_template, length=length, activations=activations, seed=seed,
        trust_remote_code=trust_remote_code, **chosen,
    )  # fmt: skip
    others = () if peers is None else tuple(read_peers(peers))
    command = shlex.join(["nash-swarm", *sys.argv[1:]])
    found = protocols[protocol](settings, output, jobs=jobs, backend=backend, command=command, quiet=quiet)
    results = replace(found, peers=others)
    files = write_report(results, output)
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
