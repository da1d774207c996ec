"""`nash-swarm eval`: a model on held-out text, or on tasks, beside its original."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nash_swarm.cli import options
from nash_swarm.errors import NashSwarmWarning, TextWarning, UsageError

if TYPE_CHECKING:
    from nash_swarm.calibration.text import Text
    from nash_swarm.evaluation.intervals import Estimate

_TASKS = "Tasks instead of a text"
Part = Literal["held-out", "all"]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="OUT", help="Folder of a packed model, or any model.")],
    reference: Annotated[
        str | None, typer.Option(help="The original model, for KL and top-1 agreement.", metavar="MODEL")
    ] = None,
    text: options.TextSource = "python-docs",
    chat_template: options.ChatTemplate = False,
    tokens: Annotated[
        int,
        typer.Option(
            min=2, metavar="N", help="At most so many tokens, in windows of 512.", rich_help_panel=options.TEXT
        ),
    ] = 8192,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Tasks instead, comma-separated: last-word and cloze are made from --text; all others are run by "
            "lm-eval (the extra `eval`).",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    task_path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Local task files (YAML) for lm-eval; no hub is asked for others.",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    questions: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Questions of each task at most.", rich_help_panel=_TASKS),
    ] = 200,
    save_tasks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write last-word and cloze as task files that lm-eval reads.",
            callback=options.not_dash,
            rich_help_panel=_TASKS,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Perplexity, KL and top-1 agreement on held-out text, or accuracy on tasks with 95 % confidence intervals.

    If the model was calibrated on the same text, only the windows that calibration never sees are used.
    """
    if tasks is not None and chat_template:
        raise UsageError("--chat-template goes with text, not with --tasks, which ask in plain words")
    if tasks is None and (task_path is not None or save_tasks is not None):
        raise UsageError("--task-path and --save-tasks go with --tasks")
    _require_models(model, reference)
    if tasks is not None:
        _evaluate_tasks(model, reference, text, tasks, task_path, questions, save_tasks, overwrite, seed, json, quiet)
        return

    import numpy as np

    from nash_swarm.calibration.text import sample_windows, shortage, warn_left_out
    from nash_swarm.cli import show
    from nash_swarm.evaluation.measures import evaluate as run

    loaded = _load(model, reference, text, chat_template)
    subject = loaded.models["packed"]
    windows = sample_windows(
        loaded.text, loaded.tokenizer, np.random.default_rng(seed), tokens=tokens, part=loaded.part, model=subject
    )
    warn_left_out(shortage(windows, loaded.text, tokens=tokens, part=loaded.part, model=subject))
    found = run(loaded.models, windows, reference=loaded.models.get("reference"), quiet=quiet)
    if json:
        show.print_json(
            {"model": model, "text": text, "part": loaded.part, "chat_template": loaded.text.templated}
            | {name: show.evaluation_values(values) for name, values in found.items()}
        )
        return
    rows = show.evaluation_rows(found["packed"], found.get("reference"), f"{loaded.text.source} ({loaded.part})")
    show.print_rich(show.table(model, ("", ""), rows))


@dataclass(frozen=True, eq=False)
class _Loaded:
    """The model, its original if one was named, their tokenizer, and the part of the text that is fair to use."""

    models: dict[str, Any]
    tokenizer: Any
    text: Text
    part: Part


def _require_models(model: str, reference: str | None) -> None:
    """Refuse names under which there is no model, before anything heavy is imported."""
    from nash_swarm.files.folders import Kind
    from nash_swarm.files.named import look, require_source

    if look(model).kind is not Kind.PACKED:
        require_source(model)
    if reference is not None:
        require_source(reference)


def _load(model: str, reference: str | None, text: str, chat_template: bool = False) -> _Loaded:
    from nash_swarm.artifacts.packed_model import load, load_tokenizer, read_report
    from nash_swarm.calibration.text import load_text
    from nash_swarm.files.folders import Kind
    from nash_swarm.files.named import look
    from nash_swarm.models.source import load_source

    place = look(model)
    loaded = load_text(text, chat_template=chat_template)
    original = load_source(reference) if reference is not None else None
    if place.kind is Kind.PACKED and place.path is not None:
        subject, tokenizer = load(place.path), load_tokenizer(place.path)
        report = read_report(place.path)
        digest = str(report.get("game", {}).get("text_digest", ""))
        seen = loaded.same_content(digest)
        if seen and digest != loaded.digest and not loaded.total:
            warnings.warn(
                f"the model was calibrated on this text with{'out' * loaded.chat} --chat-template: what is held out "
                "here it may have been calibrated on",
                TextWarning,
                stacklevel=2,
            )
        if original is not None and reference is not None:
            check_reference(model, report, reference, original.model)
    else:
        source = load_source(model)
        subject, tokenizer, seen = source.model, source.tokenizer, False
    tokenizer = tokenizer or (original.tokenizer if original else None)
    models = {"packed": subject} | ({} if original is None else {"reference": original.model})
    return _Loaded(models, tokenizer, loaded, "held-out" if seen else "all")


def check_reference(packed: str, report: Mapping[str, Any], reference: str, original: Any) -> None:
    """Refuse a reference that is not the model that was packed.

    Args:
        packed: folder of the packed model.
        report: its report.
        reference: what the user calls the original.
        original: the model of that name.

    Raises:
        UsageError: the weights are those of another model.

    Warns:
        NashSwarmWarning: the report does not say what was packed.
    """
    from nash_swarm.models.identity import weights_digest

    source = report.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("digest"), str):
        warnings.warn(
            f"{packed} does not say what it was packed from: that it was {reference} is taken on trust",
            NashSwarmWarning, stacklevel=2,
        )  # fmt: skip
    elif source["digest"] != weights_digest(original):
        raise UsageError(
            f"{reference} is not the model that {packed} was packed from ({source.get('name')}): its weights are others"
        )


def _evaluate_tasks(
    model: str, reference: str | None, text: str, tasks: str, task_path: Path | None, questions: int,
    save_tasks: Path | None, overwrite: bool, seed: int, json: bool, quiet: bool,
) -> None:  # fmt: skip
    import numpy as np

    from nash_swarm.calibration.text import cut_windows
    from nash_swarm.cli import show
    from nash_swarm.evaluation import cloze
    from nash_swarm.evaluation.intervals import accuracy, difference, sign_test
    from nash_swarm.files.atomic import check_new_folder
    from nash_swarm.files.known import TASK_FILES
    from nash_swarm.files.places import source_places
    from nash_swarm.integrations.harness import require_harness, run_tasks
    from nash_swarm.models.tasks import require_predictions

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    own = [name for name in names if name in cloze.TASKS and task_path is None]
    others = [name for name in names if name not in own]
    if not names:
        raise UsageError(f"name at least one task, like {', '.join(cloze.TASKS)}")
    if others:
        require_harness(others)
    if save_tasks is not None:
        places = source_places(model, reference, text, task_path)
        check_new_folder(save_tasks, overwrite=overwrite, kind=TASK_FILES, sources=places)
    loaded = _load(model, reference, text)
    if loaded.tokenizer is None:
        raise UsageError("this model has no tokenizer; it cannot read a question")
    for subject in loaded.models.values():
        require_predictions(subject, "--tasks", causal=True)
    values: dict[str, Any] = {"model": model, "text": text, "part": loaded.part, "tasks": {}}
    rows: list[tuple[str, ...]] = []
    if own or save_tasks is not None:
        pieces = loaded.tokenizer.batch_decode(cut_windows(loaded.text, loaded.tokenizer, part=loaded.part))
        asked = cloze.make_questions(pieces, questions, np.random.default_rng(seed))
        if save_tasks is not None:
            cloze.write_task_files(asked, save_tasks, overwrite=overwrite)
        right = {
            name: cloze.answer(one, loaded.tokenizer, asked, quiet=quiet) for name, one in loaded.models.items() if own
        }
        for task in own:
            scores = {name: accuracy(answers[task]) for name, answers in right.items()}
            entry: dict[str, Any] = {"questions": len(asked)} | {name: asdict(score) for name, score in scores.items()}
            compared: tuple[str, ...] = ()
            if reference is not None:
                gained = difference(right["packed"][task], right["reference"][task])
                chance = sign_test(right["packed"][task], right["reference"][task])
                entry |= {"difference": asdict(gained), "sign_test": chance}
                compared = _percent(scores["reference"]), f"{_percent(gained, sign='+')}, p = {chance:.2g}"
            values["tasks"][task] = entry
            rows.append((f"{task} ({len(asked)} questions)", _percent(scores["packed"]), *compared))
    if others:
        found = run_tasks(
            loaded.models, loaded.tokenizer, others, task_path=task_path, limit=questions, seed=seed, quiet=quiet
        )
        for task, metrics in found["packed"].items():
            values["tasks"][task] = {
                name: {metric: asdict(estimate) for metric, estimate in scores[task].items()}
                for name, scores in found.items()
            }
            for metric in metrics:
                shown = [_plain(scores[task][metric]) for scores in found.values()]
                rows.append((f"{task}, {metric}", *shown, *[""] * (len(found) - 1)))
    if json:
        show.print_json(values)
        return
    columns = ("accuracy, 95 % interval", model) + (("original", "difference") if reference else ())
    show.print_rich(show.table(f"{text} ({loaded.part})" if own else model, columns, rows))


def _percent(estimate: Estimate, sign: str = "") -> str:
    low, value, high = (f"{100 * part:{sign}.1f}" for part in (estimate.low, estimate.value, estimate.high))
    return f"{value} % ({low} to {high})"


def _plain(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"
