"""`nash-swarm`: the application, and how errors become one line and an exit code."""

from __future__ import annotations

import _thread
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Annotated, Any

import typer

from nash_swarm.cli import bench, demo, evaluating, generating, inspection, solver_bench, stages, warming, whole
from nash_swarm.cli.failing import fail, say
from nash_swarm.cli.interrupted import HALTED, INTERRUPTED
from nash_swarm.cli.streams import give_up_output, mend_streams
from nash_swarm.errors import NashSwarmWarning
from nash_swarm.files.temporary import settle_temporary_folder
from nash_swarm.names import VERSION
from nash_swarm.progress import plain_downloads


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nash-swarm {VERSION}")
        raise typer.Exit


def _unwrapped(command: Callable[..., None]) -> str:
    """What a command's docstring says, every paragraph in one line, for the help to break where its columns end."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(command) or "").split("\n\n"))


app = typer.Typer(
    name="nash-swarm",
    help="Fit a language model into a memory budget: "
    "groups of weights bargain for bits until they reach an equilibrium.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for command in (
    whole.compress, stages.measure, stages.solve, stages.certify, stages.pack, evaluating.evaluate, generating.generate,
    inspection.inspect, inspection.solvers, bench.bench, solver_bench.bench_solvers, warming.warmup, demo.demo,
):  # fmt: skip
    app.command("eval" if command is evaluating.evaluate else None, help=_unwrapped(command))(command)


def main() -> None:
    """Entry point: exit code 0 done, 1 bad data or a failure, 2 bad usage, 130 interrupted."""
    mend_streams()
    try:
        with _insistent_interrupts(), _short_warnings(), plain_downloads():
            settle_temporary_folder()
            try:
                app()
            finally:
                sys.stdout.flush()
    except SystemExit as stop:
        # typer turns an interrupt into this code and says nothing
        if stop.code == INTERRUPTED:
            say(HALTED)
        raise
    except BaseException as error:
        code = fail(error)
        if isinstance(error, OSError):
            give_up_output()
        raise SystemExit(code) from None


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Our own warnings are one line, like our errors, and shown once; others say where they come from."""
    before = warnings.showwarning
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, NashSwarmWarning):
            if str(message) not in said:
                say(f"nash-swarm: {message}")
            said.add(str(message))
        else:
            before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _insistent_interrupts() -> Iterator[None]:
    """An interrupt that comes while a destructor runs, where Python drops it, comes again a moment later."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            again = Timer(0.01, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
