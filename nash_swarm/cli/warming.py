"""`nash-swarm warmup`."""

from __future__ import annotations

from dataclasses import asdict

from nash_swarm.cli import options


def warmup(
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compile all kernels of packed models now, so that the first use does not wait for it."""
    from nash_swarm.cli import show
    from nash_swarm.pipeline.warming import warm_up
    from nash_swarm.progress import watching

    with watching("compile kernels", quiet=quiet):
        warmed = warm_up()
    if json:
        show.print_json(asdict(warmed))
        return
    if quiet:
        return
    rows = [(kind, f"{seconds:.2f} s") for kind, seconds in warmed.seconds.items()]
    rows += [("functions compiled", str(len(warmed.compiled))), ("kept in", warmed.cache or "no folder")]
    show.print_rich(show.table(f"kernels for {warmed.path}", ("", ""), rows))
