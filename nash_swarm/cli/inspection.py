"""`nash-swarm eval`, `generate`, `inspect` and `solvers`: looking at what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nash_swarm.cli import options


def evaluate(
    model: Annotated[str, typer.Argument(metavar="OUT", help="Folder of a packed model, or any model.")],
    reference: Annotated[
        str | None, typer.Option(help="The original model, for KL and top-1 agreement.", metavar="MODEL")
    ] = None,
    text: options.TextSource = "python-docs",
    tokens: Annotated[int, typer.Option(min=2, help="At most so many tokens, in windows of 512.")] = 8192,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Perplexity, KL and top-1 agreement on held-out text; cosine to the original (--reference) for an encoder.

    If the model was calibrated on the same text, only the windows that calibration never sees are used.
    """
    import numpy as np

    from nash_swarm.cli import show
    from nash_swarm.evaluation.measures import evaluate as run
    from nash_swarm.evaluation.text import choose_windows, cut_windows, load_text
    from nash_swarm.files.packed_model import is_packed, load, load_tokenizer, read_report
    from nash_swarm.models.source import load_source

    loaded = load_text(text)
    original = load_source(reference) if reference else None
    if is_packed(model):
        subject, tokenizer = load(model), load_tokenizer(model)
        seen = read_report(Path(model)).get("game", {}).get("text_digest") == loaded.digest
    else:
        source = load_source(model)
        subject, tokenizer, seen = source.model, source.tokenizer, False
    tokenizer = tokenizer or (original.tokenizer if original else None)
    part: Literal["held-out", "all"] = "held-out" if seen else "all"
    windows = cut_windows(loaded, tokenizer, part=part, model=subject)
    count = max(1, tokens // windows.shape[1])
    windows = choose_windows(windows, count, np.random.default_rng(seed))
    models: dict[str, Any] = {"packed": subject}
    if original is not None:
        models["reference"] = original.model
    found = run(models, windows, reference=None if original is None else original.model, quiet=quiet)
    if json:
        show.print_json(
            {"model": model, "text": text, "part": part}
            | {name: show.evaluation_values(values) for name, values in found.items()}
        )
        return
    rows = show.evaluation_rows(found["packed"], found.get("reference"), f"{text} ({part})")
    show.print_rich(show.table(model, ("", ""), rows))


def generate(
    model: options.Packed,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    tokens: Annotated[int, typer.Option(min=1, help="New tokens at most.")] = 40,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")] = False,
    sample: Annotated[bool, typer.Option("--sample", help="Sample instead of taking the likeliest token.")] = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Continue a text with a packed model."""
    from nash_swarm.cli import show
    from nash_swarm.evaluation.continuation import continue_text
    from nash_swarm.files.packed_model import load, load_tokenizer

    subject, tokenizer = load(model), load_tokenizer(model)
    answer = continue_text(subject, tokenizer, prompt, tokens=tokens, chat=chat, sample=sample, seed=seed)
    if json:
        show.print_json({"model": str(model), "prompt": prompt, "text": answer})
    else:
        print(answer)


def inspect(
    model: options.Packed,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What is in a packed model: bytes, widths and certificate, read from its files without loading the model."""
    from nash_swarm.cli import show
    from nash_swarm.files.contents import read_contents

    contents = read_contents(model)
    if json:
        show.print_json(contents.to_dict())
        return
    rows: list[tuple[str, Any]] = [
        ("bytes on disk", f"{contents.file_bytes:,}"),
        ("parameters", f"{contents.parameters:,}"),
        ("bits per parameter", f"{contents.bits_per_parameter:.4f} (scope {contents.scope})"),
        *((name, f"{size:,} bytes") for name, size in contents.files.items()),
    ]
    if "solver" in contents.report:
        rows.append(("solver", f"{contents.report['solver']}, budget {contents.report.get('budget')}"))
    for name, value in contents.report.get("certificate", {}).items():
        rows.append((name.replace("_", " "), value))
    kinds = [(kind, f"{count}", f"{bits:.3f}") for kind, (count, bits) in contents.by_module().items()]
    show.print_rich(
        show.table(str(model), ("", ""), rows),
        show.table("mean bits per weight, scales included", ("module", "tensors", "bits"), kinds),
        show.histogram(contents.weight_shares),
    )


def solvers(
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Every solver, quantizer and damage estimator that is installed, ours and third parties'."""
    from nash_swarm import registry
    from nash_swarm.cli import show

    rooms: tuple[registry.Room, ...] = ("solvers", "quantizers", "damage")
    found: dict[str, dict[str, str]] = {
        room: {name: registry.load(room, name).summary for name in registry.names(room)} for room in rooms
    }
    if json:
        show.print_json(found)
        return
    for room, entries in found.items():
        show.print_rich(show.table(f"--{room.removesuffix('s')}", ("name", "what it does"), entries.items()))
