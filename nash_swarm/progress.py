"""Progress on standard error: a bar on a terminal, a line for every tenth of the work in a log file.

Nothing is written with `quiet` or if the environment sets `TQDM_DISABLE`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE = 3.0
"""Seconds before progress of work of unknown length is shown."""
_BEAT = 10.0
"""Seconds between log lines of work that does not report its share; the interval grows with the elapsed time."""
_DOWNLOADS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
_PLURALS = {"matrix": "matrices"}


class Work:
    """Receives the progress of a stage; this base class shows nothing."""

    def update(self, count: int = 1) -> None:
        """Report `count` more finished units."""

    def describe(self, label: str) -> None:
        """Change the label."""

    def note(self, text: str) -> None:
        """Show a figure beside the progress."""


@contextmanager
def working(total: int, *, label: str, unit: str, done: int = 0, quiet: bool = False) -> Iterator[Work]:
    """Show the progress of `total` units of work.

    Args:
        total: number of units.
        label: name of the work, e.g. ``pack gptq``.
        unit: name of a unit, in the singular.
        done: units finished by an earlier run.
        quiet: show nothing.
    """
    if quiet or _switched_off():
        yield Work()
    elif on_terminal():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=label, unit=unit, disable=False) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(total, label, unit, done)


def over(items: Iterable[T], *, label: str, unit: str, quiet: bool = False) -> Iterator[T]:
    """Iterate over `items`, which must have a length, and show the progress."""
    assert isinstance(items, Sized)
    with working(len(items), label=label, unit=unit, quiet=quiet) as work:
        for item in items:
            yield item
            work.update()


@contextmanager
def watching(
    label: str, *, quiet: bool = False, patience: float = _PATIENCE, beat: float = _BEAT
) -> Iterator[Callable[[float], None]]:
    """Show the elapsed time of work that takes longer than `patience` seconds, and its share if it reports one.

    A thread writes the output, so that work without progress reports is shown, too.

    Args:
        label: name of the work, e.g. ``solve milp``.
        quiet: show nothing.
        patience: seconds before anything is shown.
        beat: seconds between two lines in a log file while the finished share is unknown.

    Yields:
        A function for the finished share of the work, from 0 to 1.
    """
    if quiet or _switched_off():
        yield lambda share: None
        return
    watch = _Watch(_Meter(label) if on_terminal() else _Log(label, beat), patience)
    thread = threading.Thread(target=watch.run, name="progress", daemon=True)
    thread.start()
    try:
        yield watch.tell
    finally:
        watch.stopped.set()
        thread.join()


@contextmanager
def plain_downloads() -> Iterator[None]:
    """Keep progress bars of model hubs and data sets out of log files, unless their environment variables are set.

    Their libraries read the variables at import.
    """
    new = [] if on_terminal() else [name for name in _DOWNLOADS if name not in os.environ]
    os.environ.update(dict.fromkeys(new, "1"))
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def on_terminal() -> bool:
    """Whether standard error is a terminal that can redraw a bar."""
    stream: Any = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _switched_off() -> bool:
    return sys.stderr is None or os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")


class _Bar(Work):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, count: int = 1) -> None:
        self._bar.update(count)

    def describe(self, label: str) -> None:
        self._bar.set_description(label)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text)


class _Lines(Work):
    """A log line for every tenth of the work, with the elapsed and the estimated remaining time."""

    def __init__(self, total: int, label: str, unit: str, done: int) -> None:
        self._total, self._label, self._first, self._done = total, label, done, done
        self._units = _PLURALS.get(unit, f"{unit}s")
        self._told = _tenths(done, total)
        self._note = ""
        self._started = time.monotonic()
        if done:
            self._say("from an earlier run")

    def _say(self, text: str) -> None:
        share = f"{self._done / self._total:.0%} ({self._done:,} of {self._total:,} {self._units})"
        _say(f"{self._label}: {share} {text}")

    def update(self, count: int = 1) -> None:
        self._done += count
        tenths = _tenths(self._done, self._total)
        if tenths <= self._told:
            return
        self._told = tenths
        passed = time.monotonic() - self._started
        left = passed / (self._done - self._first) * (self._total - self._done)
        rest = f", about {_clock(left)} left" if self._done < self._total else ""
        note = f", {self._note}" if self._note else ""
        self._say(f"in {_clock(passed)}{rest}{note}")

    def describe(self, label: str) -> None:
        self._label = label

    def note(self, text: str) -> None:
        self._note = text


class _Watch:
    """Shows the reported share twice a second."""

    def __init__(self, display: _Meter | _Log, patience: float) -> None:
        self.stopped = threading.Event()
        self._display, self._patience, self._share = display, patience, 0.0

    def tell(self, share: float) -> None:
        self._share = max(self._share, min(1.0, share))

    def run(self) -> None:
        started = time.monotonic()
        if self.stopped.wait(self._patience):
            return
        while True:
            self._display.show(self._share, time.monotonic() - started)
            if self.stopped.wait(0.5):
                break
        self._display.close(time.monotonic() - started)


class _Meter:
    """A line of a terminal that is redrawn."""

    def __init__(self, label: str) -> None:
        self._label, self._width = label, 0

    def show(self, share: float, passed: float) -> None:
        left = f", about {_clock(passed / share * (1 - share))} left" if share > 0 else ""
        self._draw(f"{self._label}: {f'{share:4.0%}, ' if share > 0 else ''}{_clock(passed)}{left}")

    def close(self, passed: float) -> None:
        self._draw(f"{self._label}: {_clock(passed)}")
        print(file=sys.stderr, flush=True)

    def _draw(self, line: str) -> None:
        print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(line)


class _Log:
    """Log lines: one for every tenth of the work, or at growing intervals while the share is unknown."""

    def __init__(self, label: str, beat: float) -> None:
        self._label, self._beat, self._tenths, self._last, self._said = label, beat, 0, 0.0, False

    def show(self, share: float, passed: float) -> None:
        if share > 0:
            if _tenths(share, 1) > self._tenths and share < 1:
                self._tenths = _tenths(share, 1)
                left = _clock(passed / share * (1 - share))
                self._tell(passed, f"{share:.0%} in {_clock(passed)}, about {left} left")
        elif passed - self._last >= max(self._beat, passed / 10):
            self._tell(passed, f"{_clock(passed)} so far")

    def close(self, passed: float) -> None:
        if self._said:
            self._tell(passed, f"done in {_clock(passed)}")

    def _tell(self, passed: float, text: str) -> None:
        self._last, self._said = passed, True
        _say(f"{self._label}: {text}")


def _say(line: str) -> None:
    # one write, so that lines of several processes do not mix
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _tenths(done: float, total: float) -> int:
    return 10 if done >= total else int(10 * done / total)


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
