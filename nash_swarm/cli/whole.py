"""`nash-swarm compress`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nash_swarm.cli import early, options
from nash_swarm.names import BUILT_IN_TEXT, DEFAULT_DAMAGE, DEFAULT_SOLVER
from nash_swarm.recipe import DEFAULT, EFFORTS

_FAST, _DEFAULT, _BEST = EFFORTS["fast"], EFFORTS["default"], EFFORTS["best"]
_Effort = Annotated[
    str,
    typer.Option(
        "--effort",
        metavar="NAME",
        help=f"Minutes for quality: fast ({_FAST.measuring.windows} windows, no baselines), default "
        f"({_DEFAULT.measuring.windows}, rounded with {_DEFAULT.rounding.windows}), or best "
        f"({_BEST.measuring.windows}, rounded with {_BEST.rounding.windows}, no baselines, the packed model tuned "
        "against the original).",
        rich_help_panel=options.QUALITY,
    ),
]
_Baselines = Annotated[
    bool | None,
    typer.Option(
        "--baselines/--no-baselines",
        help="Also pack uniform and quantile, try all on calibration text held out from the game, keep the best; "
        "the effort's choice by default.",
        show_default=False,
        rich_help_panel=options.QUALITY,
    ),
]


def compress(
    model: options.Model,
    *,
    bits: options.Bits = None,
    size: options.Size = None,
    scope: options.ScopeName = DEFAULT.cut.scope,
    text: options.TextSource = BUILT_IN_TEXT,
    chat_template: options.ChatTemplate = False,
    windows: Annotated[
        int | None,
        typer.Option(
            "--windows",
            min=1,
            metavar="N",
            help=f"Calibration {options.WINDOW}; the effort's by default.",
            rich_help_panel=options.TEXT,
        ),
    ] = None,
    eval_windows: options.EvalWindows = DEFAULT.eval_windows,
    granularity: Annotated[
        str | None,
        typer.Option(
            "--granularity",
            metavar="NAME",
            help=f"{options.GRAINS}; the effort's by default.",
            rich_help_panel=options.AGENTS,
        ),
    ] = None,
    strategies: options.Widths = options.WIDTHS,
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size",
            metavar="N",
            help=f"{options.GROUPS}; the effort's by default.",
            rich_help_panel=options.AGENTS,
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels",
            metavar="NAME",
            help=f"{options.SPACING}; the effort's by default.",
            rich_help_panel=options.AGENTS,
        ),
    ] = None,
    keep: options.Keep = None,
    forbid: options.Forbid = None,
    fuse: options.Fuse = None,
    effort: _Effort = "default",
    solver: options.SolverName = DEFAULT_SOLVER,
    time_limit: options.TimeLimit = None,
    quantizer: Annotated[
        str | None,
        typer.Option(
            "--quantizer",
            metavar="NAME",
            help="How weights are rounded; the effort's by default.",
            rich_help_panel=options.QUALITY,
        ),
    ] = None,
    damage: options.DamageName = DEFAULT_DAMAGE,
    baselines: _Baselines = None,
    contest: Annotated[bool | None, typer.Option("--contest/--no-contest", hidden=True)] = None,
    seed: options.Seed = 0,
    max_memory: options.MaxMemory = None,
    trust_remote_code: options.TrustRemoteCode = False,
    output: options.Out,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit MODEL into a budget: measure, solve, pack, evaluate on held-out text, save."""
    early.check_budget(bits, size)
    early.check_names("solvers", [solver])
    early.check_names("quantizers", [quantizer])
    early.check_names("damage", [damage])
    early.check_effort(effort)
    early.check_size(max_memory)
    widths = options.read_widths(strategies)
    grain = None if granularity is None else options.read_granularity(granularity)
    spacing = None if levels is None else options.read_levels(levels)
    within = options.read_scope(scope)
    early.check_agents(widths, grain, group_size, spacing)
    rules = options.read_rules(keep, forbid, fuse)
    chosen = options.read_solver(solver, time_limit)

    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.pipeline.compressing import Compressed
    from nash_swarm.pipeline.compressing import compress as run

    done: Compressed = run(
        model, out=output, bits=bits, size=size, solver=chosen, quantizer=quantizer, damage=damage,
        granularity=grain, strategies=widths, text=text, chat_template=chat_template,
        scope=within, group_size=group_size, levels=spacing, effort=effort, windows=windows,
        eval_windows=eval_windows, rules=rules,
        baselines=contest if baselines is None else baselines, seed=seed, overwrite=overwrite, max_memory=max_memory,
        trust_remote_code=trust_remote_code, quiet=quiet,
    )  # fmt: skip
    values: dict[str, Any] = {
        "output": str(done.path),
        "bytes": done.file_bytes,
        "bits_per_parameter": done.bits_per_parameter,
        "solver": done.allocation.solver,
        "trial_kl": dict(done.trial),
        "trial_tokens": done.trial_tokens,
        "tuning_kl": {str(step): kl for step, kl in done.tuning.items()},
        "tuning_tokens": done.tuning_tokens,
        "left_out": list(done.left_out),
        "weights_by_width": show.weight_shares(done.allocation),
        "certificate": show.certificate_values(done.allocation),
    }
    if done.evaluation is not None and done.reference is not None:
        values["text"] = done.text
        values["packed"] = show.evaluation_values(done.evaluation)
        values["reference"] = show.evaluation_values(done.reference)
    if json:
        show.print_json(values)
        return
    rows = show.certificate_rows(done.allocation)
    rows.insert(2, ("on disk", f"{done.file_bytes:,} bytes = {done.bits_per_parameter:.4f} bits/param"))
    if done.evaluation is not None and done.reference is not None:
        rows += show.evaluation_rows(done.evaluation, done.reference, done.text)
    on = counted(done.trial_tokens, done.text)
    rows += [
        (f"trial {done.divergence} of {name}", f"{kl:.4f}{' (kept)' * (place == 0)} on {on}")
        for place, (name, kl) in enumerate(done.trial.items())
    ]
    on = counted(done.tuning_tokens, done.text)
    rows += [(f"held-out KL, {step} steps of tuning", f"{kl:.4f} on {on}") for step, kl in done.tuning.items()]
    rows += [("left out", line) for line in done.left_out]
    show.print_rich(
        show.table(f"{model} -> {done.path}", ("", ""), rows), show.histogram(show.weight_shares(done.allocation))
    )
