"""How far long work has come, on standard error: a bar on a terminal, a line every tenth of the work in a log file.

Nothing is written if the caller asked for quiet or the environment sets `TQDM_DISABLE`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_PATIENCE = 3.0
"""Seconds that work of unknown length may take without a word."""
_BEAT = 10.0
"""Seconds between lines of work that does not say how far it is; longer as the work gets longer."""
_DOWNLOADS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
_PLURALS = {"matrix": "matrices"}


class Work(Protocol):
    """Where a stage says how far it is."""

    def update(self, count: int = 1) -> None:
        """`count` more units are done."""

    def describe(self, label: str) -> None:
        """What is being done is now called `label`."""

    def note(self, text: str) -> None:
        """A figure to show beside the progress."""


@contextmanager
def working(total: int, *, label: str, unit: str, done: int = 0, quiet: bool = False) -> Iterator[Work]:
    """Show how far `total` units of work are.

    Args:
        total: units in all.
        label: what is done, e.g. ``pack gptq``.
        unit: what is counted, in the singular.
        done: units that were done before.
        quiet: show nothing.
    """
    if quiet or _switched_off():
        yield _Silence()
    elif on_terminal():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=label, unit=unit, disable=False) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(total, label, unit, done)


def over(items: Iterable[T], *, label: str, unit: str, quiet: bool = False) -> Iterator[T]:
    """The items one after the other, showing how far they are; `items` must have a length."""
    assert isinstance(items, Sized)
    with working(len(items), label=label, unit=unit, quiet=quiet) as work:
        for item in items:
            yield item
            work.update()


@contextmanager
def watching(
    label: str, *, quiet: bool = False, patience: float = _PATIENCE, beat: float = _BEAT
) -> Iterator[Callable[[float], None]]:
    """Show that something is going on that takes longer than `patience` seconds.

    A thread does the showing, so that work which says nothing of its progress is shown with its elapsed time.

    Args:
        label: what is done, e.g. ``solve milp``.
        quiet: show nothing.
        patience: seconds in which nothing is shown.
        beat: seconds between two lines in a log file where the share of the work that is done is not known.

    Yields:
        A function that the work may call with the share of it that is done, from 0 to 1.
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
    """Keeps the bars of model hubs and data sets out of log files, unless their environment variables say otherwise.

    Their libraries read these variables when they are imported.
    """
    new = [] if on_terminal() else [name for name in _DOWNLOADS if name not in os.environ]
    os.environ.update(dict.fromkeys(new, "1"))
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def on_terminal() -> bool:
    """Whether somebody looks at standard error: a bar that is drawn over and over is of no use in a file."""
    stream: Any = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _switched_off() -> bool:
    return sys.stderr is None or os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")


class _Silence:
    def update(self, count: int = 1) -> None:
        pass

    def describe(self, label: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, count: int = 1) -> None:
        self._bar.update(count)

    def describe(self, label: str) -> None:
        self._bar.set_description(label)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text)


class _Lines:
    """A line whenever another tenth is done, with the time that took and what the rest will take at that pace."""

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
    """Looks at what has been told, twice a second, and shows it."""

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
    """One line of a terminal."""

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
    """Lines: one every tenth of the work, or where that is not known every now and then, ever more seldom."""

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
