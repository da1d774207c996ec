"""`nash-swarm`: the application, and how errors become one line and an exit code."""

from __future__ import annotations

import _thread
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import typer

from nash_swarm.cli import bench, demo, evaluating, inspection, solver_bench, stages, warming, whole
from nash_swarm.errors import NashSwarmError, NashSwarmWarning

_INTERRUPTED = 130

app = typer.Typer(
    name="nash-swarm",
    help="Fit a language model into a memory budget: "
    "groups of weights bargain for bits until they reach an equilibrium.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    whole.compress, stages.measure, stages.solve, stages.certify, stages.pack, evaluating.evaluate, inspection.generate,
    inspection.inspect, inspection.solvers, bench.bench, solver_bench.bench_solvers, warming.warmup, demo.demo,
):  # fmt: skip
    app.command("eval" if command is evaluating.evaluate else None)(command)


def main() -> None:
    """Entry point: exit code 0 done, 1 bad data, 2 bad usage, 130 interrupted."""
    try:
        with _insistent_interrupts(), _short_warnings():
            app()
    except NashSwarmError as error:
        print(f"nash-swarm: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as stop:
        # typer turns an interrupt into this code and says nothing
        if stop.code == _INTERRUPTED:
            print("nash-swarm: interrupted; no half-written output is left", file=sys.stderr)
        raise


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Our own warnings are one line, like our errors, and shown once; others say where they come from."""
    before = warnings.showwarning
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, NashSwarmWarning):
            if str(message) not in said:
                print(f"nash-swarm: {message}", file=sys.stderr)
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
