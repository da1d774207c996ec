"""The report for people: Markdown, and a LaTeX table to paste into a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nash_swarm.caveats import counted
from nash_swarm.suite.markdown import escape, markdown_table, number
from nash_swarm.suite.record import versions_text
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, labels

ORIGINAL = "original (fp32)"


@dataclass(frozen=True)
class Column:
    """A column of a report's tables.

    Attributes:
        field: of `Row`.
        heading: what stands above it.
        how: how its numbers are written.
        told: what it is, in words.
    """

    field: str
    heading: str
    how: str
    told: str

    def text(self, value: Any) -> str:
        """The value in a cell."""
        return number(value, self.how)


LOSSES = (
    Column("bytes", "bytes", ",d", "bytes that the budget covers"),
    Column("bits_per_parameter", "bits/param", ".4f", "the same in bits per parameter"),
    Column("compression", "compression", ".1%", "share of the fp32 size that is saved"),
    Column("loss", "loss", ".4f", "nats per token"),
    Column("delta_loss", "Δ loss", "+.4f", "rise over the original's loss"),
    Column("perplexity", "perplexity", ".2f", "exp(loss)"),
    Column("kl", "KL", ".4f", "KL(original || packed), nats per token"),
    Column("top1", "top-1", ".1%", "share of tokens on which both find the same one likeliest"),
)
CERTIFICATES = (
    Column("agents", "agents", ",d", "groups of weights that share a width"),
    Column("predicted_damage", "predicted Δ loss", ".4f", "predicted rise of the loss"),
    Column("delta_loss", "measured Δ loss", "+.4f", "rise over the original's loss"),
    Column("lower_bound", "lower bound", ".4f", "no allocation within the budget has less predicted damage"),
    Column("gap", "gap", ".3%", "certified distance from the best allocation of the game"),
    Column("unilateral_regret", "unilateral regret", ".2g", "largest gain of an agent that deviates alone"),
    Column("exchange_regret", "exchange regret", ".2g", "best trade of bits between two agents"),
    Column("fill", "budget used", ".3%", "share of the budget that is used"),
    Column("solve_seconds", "seconds to solve", ".3f", "to solve and certify"),
    Column("shares", "packed as", "", "the method that chose the same allocation, which was packed once"),
)
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
    lines += [f"Versions: {versions_text()}.", ""]
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
        lines += [f"![{Path(figure).stem.replace('-', ' ')}]({figure})\n" for figure in figures]
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


def _losses(rows: Sequence[Row]) -> list[str]:
    """Sizes and losses, the original's first."""
    body = [[ORIGINAL, "", *(column.text(reference(rows).get(column.field)) for column in LOSSES)]]
    return _by_budget(rows, LOSSES, body)


def _certificates(rows: Sequence[Row]) -> list[str]:
    return _by_budget(rows, CERTIFICATES, [])


def _by_budget(rows: Sequence[Row], columns: Sequence[Column], body: list[list[str]]) -> list[str]:
    body += [
        [f"`{label}`", f"{row.bits:g}", *(column.text(getattr(row, column.field)) for column in columns)]
        for row, label in zip(rows, labels(rows), strict=True)
    ]
    return markdown_table(["method", "bits asked", *(column.heading for column in columns)], body)


def reference(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the original model, by field."""
    first = rows[0]
    return {
        "bytes": first.parameters * 4, "bits_per_parameter": 32.0, "compression": 0.0, "loss": first.reference_loss,
        "perplexity": first.reference_perplexity,
    }  # fmt: skip


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


def facts_list(results: Results) -> list[tuple[str, Any]]:
    """What a page says of a run, beside its figures."""
    known: Mapping[str, Any] = results.facts
    found: list[tuple[str, Any]] = [("command", results.command)] if results.command else []
    if "seconds" in known:
        found.append(("seconds of the last run", f"{known['seconds']:.0f}"))
    return [*found, ("versions", versions_text())]
