"""`nash-swarm inspect` and `solvers`: looking at what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nash_swarm.cli import options


def inspect(
    model: options.Packed,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Also write the heat map as a page of its own.", callback=options.not_dash
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """What is in a packed model: bytes, widths by layer and module, and certificate, read without loading the model."""
    from nash_swarm.files.named import require_packed

    model = require_packed(model)

    from nash_swarm.artifacts.contents import read_contents
    from nash_swarm.cli import show
    from nash_swarm.files.atomic import check_new_file, new_file
    from nash_swarm.files.places import source_places
    from nash_swarm.suite.heatmap import of_contents
    from nash_swarm.suite.page import heatmap_page

    if html is not None:
        check_new_file(html, overwrite=overwrite, inputs=source_places(model))
    contents = read_contents(model)
    found = of_contents(contents)
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
    rows += [("left out", line) for line in contents.report.get("left_out", ())]
    if html is not None:
        with new_file(html, overwrite=overwrite) as temporary:
            temporary.write_text(heatmap_page(model.resolve().name, rows, found), encoding="utf-8")
    if json:
        show.print_json(contents.to_dict())
        return
    kinds = [(kind, f"{count}", f"{bits:.3f}") for kind, (count, bits) in contents.by_module().items()]
    show.print_rich(
        show.table(str(model), ("", ""), rows),
        show.heat_map(found),
        show.table("mean bits per weight, scales included", ("module", "tensors", "bits"), kinds),
        show.histogram(contents.weight_shares),
    )


def solvers(
    json: options.Json = False,
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
