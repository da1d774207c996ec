"""`nash-swarm demo`: the main job on the embedded model and text, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nash_swarm.cli import early, options
from nash_swarm.names import DEFAULT_SOLVER

_MARK = "demo"
"""What the report of a model that the demo made says of who made it."""
_PROMPT = "What is the Python language used for?"


def demo(
    output: options.Out = Path("smollm2-packed"),
    bits: Annotated[float, typer.Option(help="Budget in bits per parameter.")] = 3.5,
    solver: options.SolverName = DEFAULT_SOLVER,
    windows: options.Windows = 16,
    steps: Annotated[int, typer.Option("--tune", min=0, help="Steps of tuning, two windows each; 0 for none.")] = 0,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compress the demo model on CPython's documentation and compare with `uniform` and `quantile` at equal bytes.

    Matrices are rounded with twice as many windows as damage is measured on. With `--tune` the solver's model is then
    tuned, on its grid and at the same bytes, on three times as many.
    """
    early.check_budgets([bits])
    early.check_names("solvers", [solver])

    import time
    from dataclasses import replace

    import numpy as np
    from rich.text import Text

    from nash_swarm import registry
    from nash_swarm.artifacts.packed_model import counted_bytes, is_packed, load, read_report, save
    from nash_swarm.calibration.text import BUILT_IN_TEXT, choose_windows, cut_windows, load_text
    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.evaluation.continuation import continue_text
    from nash_swarm.evaluation.measures import evaluate
    from nash_swarm.files.atomic import check_new_folder
    from nash_swarm.files.places import source_places
    from nash_swarm.game.bitgame import Calibration
    from nash_swarm.game.budget import Budget
    from nash_swarm.models.source import load_source
    from nash_swarm.pipeline.agents import find_agents
    from nash_swarm.pipeline.compressing import figures
    from nash_swarm.pipeline.effort import EFFORTS
    from nash_swarm.pipeline.measuring import measure
    from nash_swarm.pipeline.packing import pack
    from nash_swarm.pipeline.solving import solve
    from nash_swarm.pipeline.tuning import tune

    started = time.perf_counter()
    # what an earlier demo wrote is replaced without a word, what took more is not
    again = overwrite or (is_packed(output) and read_report(output).get("measured", {}).get("by") == _MARK)
    check_new_folder(output, overwrite=again, sources=source_places("smollm2"))
    names = list(dict.fromkeys((solver, "quantile", "uniform")))
    players = {name: registry.create("solvers", name) for name in names}
    estimator = registry.create("damage", "fisher")
    effort, tuning = EFFORTS["default"], EFFORTS["best"].tuning
    source = load_source("smollm2")
    cut: Any = {"granularity": effort.granularity, "levels": effort.levels, "group_size": effort.group_size}
    agents = find_agents(source.model, estimator, **cut)
    agents.check(Budget.of_bits(bits, agents.parameters))
    game = measure(
        source.model, source.tokenizer, damage=estimator, windows=windows, seed=seed,
        name=source.name, quiet=quiet, **cut,
    )  # fmt: skip
    text = load_text(BUILT_IN_TEXT)

    def chosen(part: Literal["calibration", "held-out"], count: int) -> Any:
        found = cut_windows(text, source.tokenizer, part=part)
        return choose_windows(found, count, np.random.default_rng(seed))

    rounding = Calibration(chosen("calibration", 2 * windows), text.source)
    allocations = {
        name: replace(solve(game, bits=bits, solver=player, seed=seed, quiet=quiet), calibration=rounding)
        for name, player in players.items()
    }
    models: dict[str, Any] = {"original": source.model}
    models |= {
        name: pack(source.model, allocation, quantizer=effort.quantizer, quiet=quiet)
        for name, allocation in allocations.items()
    }
    best = solver
    if steps and tuning is not None:
        best = f"{solver}, tuned"
        seen = chosen("calibration", 3 * windows)
        tuned = tune(source.model, models[solver], seen, replace(tuning, steps=steps), seed=seed, quiet=quiet)
        models = {"original": source.model, best: tuned.packed, **models}
        allocations[best] = allocations[solver]
    found = evaluate(models, chosen("held-out", windows), reference=source.model, quiet=quiet)
    save(
        models[best], output, tokenizer=source.tokenizer, overwrite=again,
        measured=figures(found[best], found["original"], BUILT_IN_TEXT) | {"by": _MARK},
    )  # fmt: skip
    chat = bool(source.tokenizer.chat_template)
    answer = continue_text(load(output), source.tokenizer, _PROMPT, tokens=32, chat=chat)

    parameters = game.parameters
    sizes = {"original": 2 * parameters} | {name: a.certificate.used_bits // 8 for name, a in allocations.items()}
    # the others are not saved: their size is the exact bound that the files of the saved one stay within
    sizes[best] = counted_bytes(output)
    shares = show.weight_shares(allocations[solver])
    if json:
        show.print_json(
            {
                "text": BUILT_IN_TEXT,
                "parameters": parameters,
                "seconds": time.perf_counter() - started,
                "note": source.note,
                "models": {
                    name: {
                        "bytes": sizes[name],
                        "bits_per_parameter": sizes[name] * 8 / parameters,
                        **show.evaluation_values(found[name]),
                    }
                    for name in models
                },
                "weights_by_width": shares,
                "certificate": show.certificate_values(allocations[solver]),
                "prompt": _PROMPT,
                "generated": answer,
            }
        )
        return
    rows = [
        (
            name + (" (16 bits)" if name == "original" else ""),
            f"{sizes[name]:,}",
            f"{sizes[name] * 8 / parameters:.3f}",
            f"{found[name].perplexity:.2f}",
            f"{found[name].kl:.4f}",
            f"{found[name].top1:.1%}",
        )
        for name in models
    ]
    on = counted(found["original"].tokens, "CPython's documentation", "held-out tokens")
    title = f"SmolLM2-135M at {bits:g} bits/param, on {on}"
    show.print_rich(
        show.table(title, ("", "bytes", "bits/param", "perplexity", "KL", "top-1"), rows),
        f"Note: {source.note}.",
        show.histogram(shares),
        Text.assemble("\n", (_PROMPT, "bold"), " ", answer),
        f"\nSaved in {output}; {time.perf_counter() - started:.0f} s in all. "
        f'Use it: nash-swarm generate {output} "Once upon a time"',
    )
