"""What is said of an exception that ends a command: one line and an exit code, and the traceback if asked for."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nash_swarm.cli.interrupted import HALTED, INTERRUPTED
from nash_swarm.errors import NashSwarmError

DEBUG = "NASH_SWARM_DEBUG"
"""Environment variable: anything but empty or 0 shows tracebacks."""
_LONGEST = 500
_ADVICE = f"{DEBUG}=1 shows the traceback"
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|cannot allocate", re.IGNORECASE)


def fail(error: BaseException) -> int:
    """Say on standard error what ended the command; returns the exit code."""
    line, code = told(error)
    if code != INTERRUPTED and os.environ.get(DEBUG, "0") not in ("", "0") and sys.stderr is not None:
        traceback.print_exception(error)
    if line:
        say(line)
    return code


def say(line: str) -> None:
    """One line on standard error, if there is one that can be written to."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(_one_line(line), file=sys.stderr)


def told(error: BaseException) -> tuple[str, int]:
    """The line that says what an exception means, and the exit code; no line for a reader that has gone away."""
    if any(isinstance(one, KeyboardInterrupt) for one in _chain(error)):
        return HALTED, INTERRUPTED
    if isinstance(error, NashSwarmError):
        return f"nash-swarm: {error}", error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", 1
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return (
            "nash-swarm: there is not enough memory; fewer --windows take less, and --max-memory reads the model block "
            f"by block ({_what(error)}; {_ADVICE})"
        ), 1
    if model := _failed_model(error):
        return f"nash-swarm: the model's own code failed: {model} raised {_what(error)}; {_ADVICE}", 1
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        return f"nash-swarm: {error.strerror}{where}", 1
    return f"nash-swarm: unexpected {_what(error)} (in {_place(error)}); {_ADVICE}", 1


def _what(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:_LONGEST] if lines else type(error).__name__


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no known place"


def _failed_model(error: BaseException) -> str:
    """The class of the outermost module whose forward pass the exception comes from; empty if it comes from none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if frame.f_code.co_name == "forward" and _is_module(module):
            kind = type(module)
            if not kind.__module__.startswith("nash_swarm."):
                return kind.__name__
    return ""


def _is_module(value: object) -> bool:
    # torch is not imported for a question that only matters where it has been
    return any(
        kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module" for kind in type(value).__mro__
    )


def _one_line(text: str) -> str:
    """The text with control characters, line breaks among them, written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
