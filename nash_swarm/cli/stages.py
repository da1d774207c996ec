"""`nash-swarm measure`, `solve` and `pack`: one stage each, with a file in between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nash_swarm.cli import early, options
from nash_swarm.files.named import require_source
from nash_swarm.names import BUILT_IN_TEXT, DEFAULT_DAMAGE, DEFAULT_QUANTIZER, DEFAULT_SOLVER
from nash_swarm.recipe import DEFAULT


def measure(
    model: options.Model,
    *,
    text: options.TextSource = BUILT_IN_TEXT,
    chat_template: options.ChatTemplate = False,
    windows: options.Windows = DEFAULT.measuring.windows,
    scope: options.ScopeName = DEFAULT.cut.scope,
    granularity: options.Grain = DEFAULT.cut.granularity,
    strategies: options.Widths = options.WIDTHS,
    group_size: options.GroupSize = DEFAULT.cut.group_size,
    levels: options.Spacing = None,
    damage: options.DamageName = DEFAULT_DAMAGE,
    coupling: Annotated[
        bool,
        typer.Option(
            "--coupling/--no-coupling",
            help="Also measure how the damage of agents interacts (not of single weights).",
            rich_help_panel=options.QUALITY,
        ),
    ] = False,
    seed: options.Seed = 0,
    max_memory: options.MaxMemory = None,
    trust_remote_code: options.TrustRemoteCode = False,
    output: options.Out,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what every agent of MODEL would suffer and cost with every width; write the game (.npz).

    A run that was killed leaves the matrices it has finished in a hidden folder beside OUT; the same command takes them
    up.
    """
    grain = options.read_granularity(granularity)
    within = options.read_scope(scope)
    spacing = None if levels is None else options.read_levels(levels)
    widths = options.read_widths(strategies)
    early.check_agents(widths, grain, group_size, spacing)
    early.check_names("damage", [damage])
    early.check_size(max_memory)

    from nash_swarm import registry
    from nash_swarm.artifacts.game import save_game
    from nash_swarm.calibration.text import load_text
    from nash_swarm.cli import show
    from nash_swarm.damage.coupling import check_coupled
    from nash_swarm.files.atomic import check_new_file
    from nash_swarm.files.places import source_places
    from nash_swarm.models.offload import require_in_memory
    from nash_swarm.models.source import load_source
    from nash_swarm.pipeline.measuring import measure as run
    from nash_swarm.pipeline.recovery import kept_pieces

    estimator = registry.create("damage", damage)
    check_coupled(coupling, grain)
    check_new_file(output, overwrite=overwrite, inputs=source_places(model, text))
    require_source(model)
    loaded = load_text(text, chat_template=chat_template)
    source = load_source(
        model, trust_remote_code=trust_remote_code, max_memory=max_memory, scratch=output.absolute().parent
    )
    if coupling:
        require_in_memory(source.model, "coupling")
    with kept_pieces(output) as pieces:
        game = run(
            source.model, source.tokenizer, text=loaded, damage=estimator, granularity=grain, strategies=widths,
            scope=within, group_size=group_size, levels=spacing, windows=windows, coupling=coupling, seed=seed,
            name=source.name, pieces=pieces, quiet=quiet,
        )  # fmt: skip
        save_game(game, output, overwrite=overwrite)
    per = 1 / game.parameters
    values = {
        "output": str(output),
        "agents": game.agents,
        "parameters": game.parameters,
        "fixed_bytes": game.fixed_bits // 8,
        "smallest_bits_per_parameter": game.smallest_bits() * per,
        "largest_bits_per_parameter": game.largest_bits() * per,
        "uniform_damage": {
            str(bits): float(game.damage[:, place].sum(dtype="float64")) for place, bits in enumerate(game.strategies)
        },
        "damage_unit": game.provenance["damage_unit"],
        "coupling": "none" if game.coupling is None else "vectors",
    }
    if json:
        show.print_json(values)
        return
    rows = [(name.replace("_", " "), value) for name, value in values.items() if name != "uniform_damage"]
    damages = [(bits, f"{value:.5g}") for bits, value in values["uniform_damage"].items()]
    show.print_rich(
        show.table(f"game of {model}", ("", ""), rows), show.table("damage if all play", ("bits", "damage"), damages)
    )


def solve(
    game: Annotated[Path, typer.Argument(metavar="GAME.npz", help="From `nash-swarm measure`.")],
    *,
    bits: options.Bits = None,
    size: options.Size = None,
    keep: options.Keep = None,
    forbid: options.Forbid = None,
    fuse: options.Fuse = None,
    solver: options.SolverName = DEFAULT_SOLVER,
    time_limit: options.TimeLimit = None,
    seed: options.Seed = 0,
    output: options.Out,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Allocate a budget by any solver; write the allocation (.json). Nothing is measured again."""
    early.check_budget(bits, size)
    early.check_names("solvers", [solver])
    rules = options.read_rules(keep, forbid, fuse)
    chosen = options.read_solver(solver, time_limit)

    from nash_swarm.artifacts.allocation import save_allocation
    from nash_swarm.artifacts.game import load_game
    from nash_swarm.cli import show
    from nash_swarm.files.atomic import check_new_file
    from nash_swarm.files.places import source_places
    from nash_swarm.pipeline.solving import solve as run

    check_new_file(output, overwrite=overwrite, inputs=source_places(game))
    allocation = run(load_game(game), bits=bits, size=size, solver=chosen, seed=seed, rules=rules, quiet=quiet)
    save_allocation(allocation, output, overwrite=overwrite)
    if json:
        show.print_json({"output": str(output), "solver": solver, "certificate": show.certificate_values(allocation)})
    elif not quiet:
        show.print_rich(show.table(f"{solver}: {output}", ("", ""), show.certificate_rows(allocation)))


def certify(
    game: Annotated[Path, typer.Argument(metavar="GAME.npz", help="From `nash-swarm measure`.")],
    allocation: Annotated[Path, typer.Argument(metavar="ALLOCATION.json", help="From `nash-swarm solve`.")],
    json: options.Json = False,
) -> None:
    """Check an allocation's certificate against the game, whoever wrote it; fail if it was tampered with."""
    from nash_swarm.artifacts.allocation import load_allocation
    from nash_swarm.artifacts.game import load_game
    from nash_swarm.cli import show
    from nash_swarm.pipeline.certifying import check_certificate

    claimed = load_allocation(allocation)
    check_certificate(load_game(game), claimed)
    if json:
        show.print_json({"allocation": str(allocation), "holds": True, "certificate": show.certificate_values(claimed)})
    else:
        show.print_rich(show.table(f"{allocation}: the certificate holds", ("", ""), show.certificate_rows(claimed)))


def pack(
    model: options.Model,
    allocation: Annotated[Path, typer.Argument(metavar="ALLOCATION.json", help="From `nash-swarm solve`.")],
    output: options.Out,
    quantizer: options.QuantizerName = DEFAULT_QUANTIZER,
    overwrite: options.Overwrite = False,
    max_memory: options.MaxMemory = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Round MODEL to an allocation, pack it, and save it."""
    early.check_names("quantizers", [quantizer])
    early.check_size(max_memory)

    from nash_swarm import registry
    from nash_swarm.artifacts.allocation import load_allocation
    from nash_swarm.artifacts.packed_model import counted_bytes, save
    from nash_swarm.cli import show
    from nash_swarm.files.atomic import check_new_folder, check_space
    from nash_swarm.files.places import source_places
    from nash_swarm.models.source import load_source
    from nash_swarm.pipeline.packing import pack as run

    check_new_folder(output, overwrite=overwrite, sources=source_places(model, allocation))
    rounding = registry.create("quantizers", quantizer)
    chosen = load_allocation(allocation)
    source = load_source(
        model, trust_remote_code=trust_remote_code, max_memory=max_memory, scratch=output.absolute().parent
    )
    if chosen.provenance.get("scope") == "model":
        check_space(output, chosen.budget.total_bits // 8)
    packed = run(source.model, chosen, quantizer=rounding, quiet=quiet)
    left_out = (*chosen.provenance.get("left_out", ()), *source.left_out)
    save(packed, output, tokenizer=source.tokenizer, files=source.files, left_out=left_out, overwrite=overwrite)
    values = {"output": str(output), "bytes": counted_bytes(output), "budget_bytes": chosen.budget.total_bits // 8}
    if json:
        show.print_json(values)
    elif not quiet:
        show.print_rich(f"{output}: {values['bytes']:,} of {values['budget_bytes']:,} bytes")
