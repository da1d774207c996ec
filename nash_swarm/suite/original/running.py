"""`nash-swarm bench --protocol original`: the document's table as it was made, and the same when everything counts."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.evaluation.text import Text, choose_windows, cut_windows, load_text
from nash_swarm.models.source import Source
from nash_swarm.suite.original.method import METHODS, Method, Rounding, linears, round_linears
from nash_swarm.suite.original.padding import LENGTH, Padded, pad_passages, padded_gradients, padded_loss
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, loss_figures, size_figures, versions_text
from nash_swarm.suite.running import run
from nash_swarm.suite.settings import Settings
from nash_swarm.suite.sources import forget_sources, source_of

ORIGINAL, COUNTED = "original", "original, all counted"
OURS = ("nash", "quantile", "uniform")
"""Solvers whose packed models stand beside the document's methods."""
_LABELS = {ORIGINAL: "as published", COUNTED: "all counted"}


def run_original(
    settings: Settings,
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    command: str = "",
    quiet: bool = False,
) -> Results:
    """Rows of the document's methods under both accountings, then packed models of `settings`.

    Each method has two rows. In the first, size is that of the rounded matrices' codes alone, and the loss is over
    passages padded to 64 tokens, padding included. In the second, the same rounded weights: size is the least that a
    file with all of it can take (codes, the widths' entropy, scales, everything else in 16 bits), and the loss is that
    of the suite, over windows without padding.

    Args:
        settings: models, texts, seed, and the budgets and solvers of the packed models.
        out, jobs, backend, command, quiet: see `running.run`.

    Raises:
        UsageError, BudgetError, DataError: see `running.run`; a model may have no `nn.Linear` or no tokenizer.
    """
    started = time.perf_counter()
    settings.check()
    text = load_text(settings.text)
    eval_text = load_text(settings.eval_text) if settings.eval_text else text
    same = eval_text.digest == text.digest
    rows: list[Row] = []
    for name in settings.models:
        source, reference = source_of(name, settings.trust_remote_code)
        rows += list(_rows(settings, source, reference, eval_text, same, quiet))
    forget_sources()
    ours = run(settings, out, jobs=jobs, backend=backend, command=command, quiet=quiet)
    facts = {**ours.facts, "seconds": time.perf_counter() - started}
    return replace(ours, rows=(*rows, *ours.rows), facts=facts)


def _rows(settings: Settings, source: Source, reference: Any, text: Text, held_out: bool, quiet: bool) -> Iterator[Row]:
    padded = pad_passages(text, source.tokenizer, settings.seed)
    windows = cut_windows(text, source.tokenizer, part="held-out" if held_out else "all")
    windows = choose_windows(windows, settings.eval_windows, np.random.default_rng(settings.seed))
    before = padded_loss(source.model, padded)
    whole = evaluate({"original": source.model}, windows, quiet=True)["original"]
    needed = any(method.needs_gradient for method in METHODS)
    gradients = padded_gradients(source.model, linears(source.model), padded) if needed else None
    for method in METHODS:
        model = copy.deepcopy(source.model)
        rounding = round_linears(model, method, gradients)
        after = padded_loss(model, padded)
        measured = _measure(model, reference, windows, quiet)
        del model
        share = rounding.weights / rounding.parameters
        yield _row(
            ORIGINAL, method, rounding, settings, source, text,
            {
                **size_figures(rounding.weights, rounding.theoretical_bytes), **loss_figures(after, before),
                "bits": rounding.theoretical_bits, "tokens": padded.tokens,
                "note": _note(padded, share),
            },
        )  # fmt: skip
        yield _row(
            COUNTED, method, rounding, settings, source, text,
            {
                **size_figures(rounding.parameters, rounding.honest_bytes), **loss_figures(measured.loss, whole.loss),
                "bits": rounding.honest_bytes * 8 / rounding.parameters, "tokens": measured.tokens,
                "kl": measured.kl, "top1": measured.top1,
                "note": f"map of widths counted at its entropy, {rounding.map_entropy:.3f} bits a weight; "
                f"{1 - share:.1%} of the parameters stay in 16 bits",
            },
        )  # fmt: skip


def _row(
    protocol: str, method: Method, rounding: Rounding, settings: Settings, source: Source, text: Text,
    figures: dict[str, Any],
) -> Row:  # fmt: skip
    return Row(
        protocol=protocol, model=source.name, method=f"{method.name}, {_LABELS[protocol]}", scope="linear",
        granularity="parameter" if method.importance else "layer", quantizer="one scale a tensor and width",
        agents=rounding.weights if method.importance else None, seed=settings.seed, text=text.source,
        text_digest=text.digest, eval_text=text.source, eval_text_digest=text.digest, versions=versions_text(),
        **figures,
    )  # fmt: skip


def _measure(model: Any, reference: Any, windows: npt.NDArray[np.int32], quiet: bool) -> Evaluation:
    return evaluate({"rounded": model}, windows, reference=reference, quiet=quiet)["rounded"]


def _note(padded: Padded, share: float) -> str:
    return (
        f"size is of the codes of nn.Linear only, {share:.1%} of the parameters; "
        f"{padded.padding:.1%} of the tokens in the loss are padding to {LENGTH}"
    )
