"""`nash-swarm compress`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nash_swarm.cli import options
from nash_swarm.names import DEFAULT_SOLVER


def compress(
    model: options.Model,
    output: options.Out,
    bits: options.Bits = None,
    size: options.Size = None,
    solver: options.SolverName = DEFAULT_SOLVER,
    quantizer: Annotated[str | None, typer.Option("--quantizer", help="Rounding; the effort's by default.")] = None,
    damage: options.DamageName = "fisher",
    granularity: Annotated[
        str | None, typer.Option("--granularity", help=f"{options.GRAINS}; the effort's by default.")
    ] = None,
    strategies: options.Widths = "2,3,4,5,6,8",
    text: options.TextSource = "python-docs",
    chat_template: options.ChatTemplate = False,
    scope: options.ScopeName = "model",
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size", help="Columns that share a scale and zero-point per row; the effort's by default."
        ),
    ] = None,
    levels: Annotated[str | None, typer.Option("--levels", help=f"{options.SPACING}; the effort's by default.")] = None,
    effort: options.EffortName = "default",
    windows: Annotated[
        int | None, typer.Option("--windows", min=1, help="Calibration windows of 512 tokens; the effort's by default.")
    ] = None,
    eval_windows: options.EvalWindows = 16,
    keep: options.Keep = None,
    forbid: options.Forbid = None,
    fuse: options.Fuse = None,
    rounds: options.Rounds = 0,
    contest: options.Contest = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit MODEL into a budget: measure, solve, pack, evaluate on held-out text, save."""
    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.pipeline.compressing import Compressed
    from nash_swarm.pipeline.compressing import compress as run

    widths = options.read_widths(strategies)
    grain = None if granularity is None else options.read_granularity(granularity)
    spacing = None if levels is None else options.read_levels(levels)
    done: Compressed = run(
        model, out=output, bits=bits, size=size, solver=solver, quantizer=quantizer, damage=damage,
        granularity=grain, strategies=widths, text=text, chat_template=chat_template,
        scope=options.read_scope(scope), group_size=group_size, levels=spacing, effort=effort, windows=windows,
        eval_windows=eval_windows, rules=options.read_rules(keep, forbid, fuse), rounds=rounds,
        contest=contest, seed=seed, overwrite=overwrite, max_memory=max_memory,
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
        values["text"] = text
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
