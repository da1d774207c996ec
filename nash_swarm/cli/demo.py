"""`nash-swarm demo`: the main job on the embedded model and text, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

    from rich.text import Text

    from nash_swarm.artifacts.packed_model import is_packed, load, read_report
    from nash_swarm.caveats import counted
    from nash_swarm.cli import show
    from nash_swarm.evaluation.continuation import continue_text
    from nash_swarm.files.atomic import check_new_folder
    from nash_swarm.files.places import source_places
    from nash_swarm.models.source import load_source
    from nash_swarm.pipeline.compressing import compress
    from nash_swarm.recipe import DEFAULT, EFFORTS, Rounding

    started = time.perf_counter()
    # what an earlier demo wrote is replaced without a word, what took more is not
    again = overwrite or (is_packed(output) and read_report(output).get("measured", {}).get("by") == _MARK)
    check_new_folder(output, overwrite=again, sources=source_places("smollm2"))
    best = EFFORTS["best"].tuning
    tuning = replace(best, steps=steps, windows=3 * windows) if steps and best is not None else None
    recipe = replace(DEFAULT, rounding=Rounding(windows=2 * windows), tuning=tuning)
    recipe = replace(
        recipe.changed({"bits": bits, "solver": solver, "baselines": False, "eval_windows": windows, "seed": seed}),
        measuring=replace(DEFAULT.measuring, windows=windows),
    )  # fmt: skip
    source = load_source("smollm2")
    done = compress(source, out=output, recipe=recipe, keep_baselines=True, by=_MARK, overwrite=again, quiet=quiet)
    assert done.evaluation is not None and done.reference is not None
    answer = continue_text(
        load(output), source.tokenizer, _PROMPT, tokens=32, chat=bool(source.tokenizer.chat_template)
    )  # fmt: skip

    parameters = round(done.file_bytes * 8 / done.bits_per_parameter)
    kept = f"{solver}, tuned" if done.tuning else solver
    found = {"original": done.reference, kept: done.evaluation}
    found |= {name: evaluation for name, (_, evaluation) in done.compared.items()}
    # the others are not saved: their size is the exact bound that the files of the saved one stay within
    sizes = {name: each.certificate.used_bits // 8 for name, (each, _) in done.compared.items()}
    sizes |= {"original": 2 * parameters, kept: done.file_bytes}
    shares = show.weight_shares(done.allocation)
    if json:
        show.print_json(
            {
                "text": done.text,
                "parameters": parameters,
                "seconds": time.perf_counter() - started,
                "note": source.note,
                "models": {
                    name: {
                        "bytes": sizes[name],
                        "bits_per_parameter": sizes[name] * 8 / parameters,
                        **show.evaluation_values(evaluation),
                    }
                    for name, evaluation in found.items()
                },
                "weights_by_width": shares,
                "certificate": show.certificate_values(done.allocation),
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
        for name in found
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
