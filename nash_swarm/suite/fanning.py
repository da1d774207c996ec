"""Work shared out by joblib, to whatever backend there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nash_swarm.errors import UsageError
from nash_swarm.progress import working


class Task(Protocol):
    """Plain data with the work to do on it; the work writes its own results."""

    def run(self) -> None:
        """Do it."""


def fan_out(
    tasks: Sequence[Task], *, jobs: int, backend: str, label: str, unit: str, done: int = 0, quiet: bool = False
) -> None:
    """Run tasks, `jobs` at a time, and show how many are left and how long that takes.

    Args:
        tasks: what to run.
        jobs: how many at a time; 1 runs them here, -1 one a core.
        backend: any joblib backend: `loky` (processes), `threading`, `multiprocessing`, `dask`, `ray`, or one that the
            caller has registered.
        label, unit: what the progress bar says.
        done: tasks that an earlier run has finished.
        quiet: no progress bar.

    Raises:
        UsageError: joblib has no such backend, or it is not installed.
        NashSwarmError: what a task raised.
    """
    with working(done + len(tasks), label=label, unit=unit, done=done, quiet=quiet) as work:
        if not tasks:
            return
        for _ in _parallel(jobs, backend)(_calls(tasks)):
            work.update()


def check_backend(jobs: int, backend: str) -> None:
    """Refuse a backend before the work that it is for.

    Raises:
        UsageError: see `fan_out`.
    """
    _parallel(jobs, backend)


def _calls(tasks: Sequence[Task]) -> Any:
    from joblib import delayed

    return (delayed(_run)(task) for task in tasks)


def _run(task: Task) -> None:
    task.run()


def _parallel(jobs: int, backend: str) -> Any:
    from joblib import Parallel

    if jobs == 0 or jobs < -1:
        raise UsageError(f"jobs must be a positive number, or -1 for one a core, not {jobs}")
    _introduce(backend)
    try:
        try:
            return Parallel(n_jobs=jobs, backend=backend, return_as="generator_unordered")
        except ValueError:  # a backend that gives nothing back before everything is done
            return Parallel(n_jobs=jobs, backend=backend)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--backend {backend}: {error}") from None


def _introduce(backend: str) -> None:
    """Cluster backends that joblib has to be told of first."""
    try:
        if backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
        elif backend == "dask":
            # the scheduler that DASK_SCHEDULER_ADDRESS names, or one of this machine
            from distributed import Client, get_client

            try:
                get_client()
            except ValueError:
                Client()
    except ImportError as error:
        raise UsageError(f"--backend {backend} needs a package that is not installed: {error.name}") from None
