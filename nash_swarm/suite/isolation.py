"""A function in a process of its own: its peak memory is its own, and it can be stopped."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from nash_swarm.errors import NashSwarmError

_PRELOAD = ["nash_swarm.suite.synthetic.cells"]
_SETUP_LIMIT = 900.0
Begin = Callable[[], None]
"""Called by a task when its preparations are done and its time begins to count."""


class Unfinished(Exception):
    """The task came to no result; the message says why."""


class OutOfTime(Unfinished):
    """The task took longer than allowed."""


def run_alone(task: Callable[..., Any], *arguments: Any, limit: float) -> Any:
    """What `task(begin, *arguments)` returns, run in a new process.

    Where the system can fork, processes come from a server that has imported what solvers need and done nothing else;
    so each starts soon and with the same memory.

    Args:
        task: a function of a module; it calls `begin()` when it has prepared what is not to be timed.
        arguments: can be pickled.
        limit: seconds after `begin()`.

    Raises:
        OutOfTime: the limit was reached; the process is gone.
        Unfinished: the task raised an error, or its process died.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(_PRELOAD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, task, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        kind, value = _next(receiver, process, _SETUP_LIMIT, "preparing ")
        if kind == "begin":
            kind, value = _next(receiver, process, limit, "")
    finally:
        with suppress(OSError):
            process.kill()
        process.join()
        receiver.close()
    if kind == "error":
        raise Unfinished(value)
    return value


def _next(receiver: Connection, process: Any, limit: float, what: str) -> tuple[str, Any]:
    if not receiver.poll(limit):
        raise OutOfTime(f"{what}took more than {limit:g} s")
    try:
        message: tuple[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        raise Unfinished(f"its process ended with code {process.exitcode} (killed: out of memory?)") from None
    return message


def _answer(sender: Connection, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        value = task(lambda: sender.send(("begin", None)), *arguments)
    except NashSwarmError as error:
        sender.send(("error", str(error)))
    except Exception as error:
        # the table goes on without this cell; a plug-in may raise anything
        sender.send(("error", f"{type(error).__name__}: {error}"))
    else:
        sender.send(("value", value))
