"""The report for people: Markdown, and a LaTeX table to paste into a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nash_swarm.caveats import counted
from nash_swarm.suite.markdown import escape, markdown_table, number
from nash_swarm.suite.record import versions_text
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, labels

ORIGINAL = "original (fp32)"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each model, in the order of their budgets, best loss first.

    Protocols are kept apart, because their losses and sizes are of different things: where there are several, a name is
    that of the model and the protocol.
    """
    rows = list(rows)
    one = len({row.protocol for row in rows}) == 1
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.model if one else f"{row.model}, {row.protocol}", []).append(row)
    return {name: sorted(of, key=lambda row: (row.bits, row.loss)) for name, of in found.items()}


def markdown(results: Results, figures: Sequence[str] = ()) -> str:
    """`report.md`.

    Args:
        results: what was found.
        figures: paths of pictures, relative to the report.
    """
    lines = ["# Benchmark", ""]
    if results.command:
        lines += ["```sh", results.command, "```", ""]
    lines += [versions_line(), ""]
    for model, rows in by_model(results.rows).items():
        lines += [f"## {escape(model)}", "", about(rows), ""]
        lines += [*_losses(rows), ""]
        if any(row.predicted_damage is not None for row in rows):
            lines += [*_certificates(rows), ""]
    if results.failures:
        lines += ["## Not possible", ""]
        lines += [
            f"- {escape(f['model'])}, {escape(f['method'])} at {f['bits']:g} bits: {escape(f['error'])}"
            for f in results.failures
        ]
        lines += [""]
    if figures:
        lines += ["## Figures", ""]
        lines += [f"![{_caption(figure)}]({figure})\n" for figure in figures]
    return "\n".join(lines).rstrip() + "\n"


def about(rows: Sequence[Row]) -> str:
    """What the figures of one model's rows are of."""
    row = rows[0]
    calibrated = (
        f"calibrated on {row.calibration_tokens:,} tokens of {row.text} (digest {row.text_digest}), "
        if row.calibration_tokens
        else ""
    )
    measured = f"measured on {counted(row.tokens, f'{row.eval_text} (digest {row.eval_text_digest})')}"
    return (
        f"{row.parameters:,} parameters, scope {row.scope}, seed {row.seed}; {calibrated}{measured}. "
        f"Original: loss {row.reference_loss:.4f}, perplexity {row.reference_perplexity:.2f}."
        + (f" Note: {row.note}." if row.note else "")
    )


def versions_line() -> str:
    """Versions of the libraries, in a sentence."""
    return f"Versions: {versions_text()}."


def _losses(rows: Sequence[Row]) -> list[str]:
    head = (
        "method", "bits asked", "bytes", "bits/param", "compression", "loss", "Δ loss", "perplexity", "KL", "top-1",
    )  # fmt: skip
    original = rows[0]
    body = [(
        ORIGINAL, "", f"{original.parameters * 4:,}", "32", "0 %", f"{original.reference_loss:.4f}", "",
        f"{original.reference_perplexity:.2f}", "", "",
    )]  # fmt: skip
    body += [
        (
            f"`{label}`", f"{row.bits:g}", f"{row.bytes:,}", f"{row.bits_per_parameter:.4f}",
            f"{row.compression:.1%}", f"{row.loss:.4f}", f"{row.delta_loss:+.4f}", f"{row.perplexity:.2f}",
            number(row.kl, ".4f"), number(row.top1, ".1%"),
        )
        for row, label in zip(rows, labels(rows), strict=True)
    ]  # fmt: skip
    return markdown_table(head, body)


def _certificates(rows: Sequence[Row]) -> list[str]:
    head = (
        "method", "bits asked", "agents", "predicted damage", "measured Δ loss", "lower bound", "gap",
        "unilateral regret", "exchange regret", "budget used", "seconds to solve", "packed as",
    )  # fmt: skip
    return markdown_table(head, [
        (
            f"`{label}`", f"{row.bits:g}", number(row.agents, ",d"), number(row.predicted_damage, ".4f"),
            f"{row.delta_loss:+.4f}", number(row.lower_bound, ".4f"), number(row.gap, ".3%"),
            number(row.unilateral_regret, ".2g"), number(row.exchange_regret, ".2g"), number(row.fill, ".3%"),
            number(row.solve_seconds, ".3f"), f"`{row.shares}`" if row.shares else "",
        )
        for row, label in zip(rows, labels(rows), strict=True)
    ])  # fmt: skip


def latex(results: Results) -> str:
    """`table.tex`: one booktabs table a model, in the shape of the table this project started from."""
    lines = ["% needs \\usepackage{booktabs}"]
    if results.command:
        lines.append(f"% {' '.join(results.command.split())}")
    for model, rows in by_model(results.rows).items():
        first = rows[0]
        lines += [
            r"\begin{table}[t]", r"\centering",
            rf"\caption{{{_tex(model)}: {_tex(about(rows))}}}", r"\begin{tabular}{lrrrrr}", r"\toprule",
            r"Method & Size (MB) & Compression (\%) & Loss & $\Delta$ loss (\%) & Perplexity \\", r"\midrule",
            rf"{_tex(ORIGINAL)} & {first.parameters * 4 / 1e6:.2f} & 0.0 & {first.reference_loss:.4f} & -- & "
            rf"{first.reference_perplexity:.2f} \\",
        ]  # fmt: skip
        bits: float | None = None
        for row, label in zip(rows, labels(rows), strict=True):
            if row.bits != bits:
                lines += [r"\midrule", rf"\multicolumn{{6}}{{l}}{{{row.bits:g} bits per parameter}} \\"]
                bits = row.bits
            lines.append(
                rf"{_tex(label)} & {row.bytes / 1e6:.2f} & {100 * row.compression:.1f} & {row.loss:.4f} & "
                rf"{100 * row.delta_loss / row.reference_loss:+.2f} & {row.perplexity:.2f} \\"
            )
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in re.sub(r"\s+", " ", text))


def _caption(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("-", " ")


def facts_list(results: Results) -> list[tuple[str, Any]]:
    """What a page says of a run, beside its figures."""
    known: Mapping[str, Any] = results.facts
    found: list[tuple[str, Any]] = [("command", results.command)] if results.command else []
    if "seconds" in known:
        found.append(("seconds of the last run", f"{known['seconds']:.0f}"))
    return [*found, ("versions", versions_line().removeprefix("Versions: "))]
