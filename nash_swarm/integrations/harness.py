"""Tasks of lm-eval (EleutherAI's Language Model Evaluation Harness), from the hub or from local task files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_swarm import extras
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.intervals import Estimate

Scores = dict[str, dict[str, Estimate]]
"""Estimates by task and metric."""


def require_harness(tasks: Sequence[str]) -> None:
    """Refuse before a model is loaded.

    Raises:
        UsageError: lm-eval is not installed.
    """
    if missing := extras.missing(("lm_eval", "accelerate")):
        raise UsageError(
            f"the task{'s' * (len(tasks) > 1)} {', '.join(tasks)} need{'s' * (len(tasks) == 1)} "
            f"{' and '.join(missing)}; {extras.how_to_install('eval')}"
        )


def run_tasks(
    models: Mapping[str, Any],
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    task_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Scores]:
    """Scores of several models on tasks of lm-eval.

    Args:
        models: causal language models by name, packed or not.
        tokenizer: of all of them.
        tasks: names of tasks or groups.
        task_path: folder of local task files; then no others are known, and nothing is looked for on a hub.
        limit: documents of each task at most.
        batch_size: documents at a time.
        seed: of few-shot examples and sampling.
        quiet: no progress bars and no log.

    Raises:
        UsageError: lm-eval is not installed, or there is no such task; the message lists local ones.
        DataError: a task or its data cannot be read.
    """
    require_harness(tasks)
    import logging

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR if quiet else logging.WARNING)
    if task_path is not None and not Path(task_path).is_dir():
        raise DataError(f"no folder of task files at {task_path}")
    local = None if task_path is None else str(task_path)
    manager = TaskManager(include_path=local, include_defaults=local is None)
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        known = f"; there are: {', '.join(manager.all_tasks)}" if local else ""
        raise UsageError(f"lm-eval knows no task {', '.join(unknown)}{known}")
    found: dict[str, Scores] = {}
    for name, model in models.items():
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        try:
            results = simple_evaluate(
                wrapped, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False, bootstrap_iters=1000,
                random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
            )  # fmt: skip
        except Exception as error:  # tasks are code and data of others: they raise anything
            line = str(error).strip().splitlines()[:1]
            raise DataError(f"lm-eval: {''.join(line) or type(error).__name__}") from error
        found[name] = {task: _estimates(values) for task, values in results["results"].items()}
    return found


def _estimates(values: Mapping[str, Any]) -> dict[str, Estimate]:
    """`acc,none` and `acc_stderr,none` as one estimate; an interval of no width where there is no standard error."""
    found = {}
    for key, value in values.items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        label = metric if kind == "none" else f"{metric} ({kind})"
        found[label] = Estimate.of_error(float(value), float(error) if isinstance(error, int | float) else 0.0)
    return found
