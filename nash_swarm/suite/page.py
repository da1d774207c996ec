"""Self-contained pages: one file, no network, every text escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from nash_swarm.files.values import finite
from nash_swarm.suite.heatmap import HeatMap
from nash_swarm.suite.markdown import number
from nash_swarm.suite.peers import beside
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, labels
from nash_swarm.suite.tables import CERTIFICATES, LOSSES, ORIGINAL, Column, about, by_model, facts_list, reference

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_PLOTTED = (
    "bits", "bytes", "kl", "perplexity", "predicted_damage", "delta_loss", "unilateral_regret", "gap",
)  # fmt: skip
_COLUMNS = (*LOSSES, *(column for column in CERTIFICATES if column.field not in ("delta_loss", "shares")))


def report_page(results: Results) -> str:
    """`report.html`."""
    groups = by_model(results.rows)
    data = {
        "models": [
            {
                "name": model,
                "reference_perplexity": rows[0].reference_perplexity,
                "rows": [
                    {
                        "label": label,
                        **{name: getattr(row, name) for name in _PLOTTED},
                        **{name: results.details.get(row.key, {}).get(name) for name in _DETAILS},
                    }
                    for row, label in zip(rows, labels(rows), strict=True)
                ],
                "peers": beside(results.peers, rows),
            }
            for model, rows in groups.items()
        ],
        "maps": results.maps,
    }
    body = [_heading("Benchmark", "Solvers, budgets and models: what they take and what they lose")]
    for place, (model, rows) in enumerate(groups.items()):
        body += [f'<section class="model" data-model="{place}" aria-labelledby="model-{place}">']
        body += [f'<h2 id="model-{place}">{escape(model)}</h2>', f"<p>{escape(about(rows))}</p>"]
        body += ['<div class="charts"></div>', "<h3>All figures</h3>", _table(model, rows), "</section>"]
    if results.failures:
        body += ["<section><h2>Not possible</h2><ul>"]
        body += [
            f"<li>{escape(str(f['model']))}, {escape(str(f['method']))} at {f['bits']:g} bits: "
            f"{escape(str(f['error']))}</li>"
            for f in results.failures
        ]
        body += ["</ul></section>"]
    body += ["<section><h2>How this was made</h2><dl>"]
    body += [f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts_list(results)]
    body += ["</dl></section>"]
    return page("Benchmark", body, data, ("charts.js", "heatmap.js", "report.js"))


def heatmap_page(title: str, facts: Sequence[tuple[str, Any]], found: HeatMap) -> str:
    """A page of one packed model: its heat map, its widths, and facts as a list."""
    body = [_heading(title, "Where the bits of a packed model are")]
    body += ['<section class="charts" id="map"></section>', "<section><h2>Facts</h2><dl>"]
    body += [f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts]
    body += ["</dl></section>"]
    return page(title, body, {"map": found.to_dict()}, ("charts.js", "heatmap.js", "inspect.js"))


def page(title: str, body: Sequence[str], data: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: of the window; escaped here.
        body: HTML, escaped by the caller.
        data: JSON values that the scripts show.
        scripts: names of files in `assets/`, in order.
    """
    # what ends a script element, or begins a comment in it, must not stand in one
    text = json.dumps(finite(data), separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_asset('page.css')}</style></head>",
            "<body><main>",
            *body,
            "<noscript><p>Pictures need JavaScript; the tables do not.</p></noscript>",
            '</main><div id="tip" role="tooltip" hidden></div>',
            f'<script type="application/json" id="data">{text}</script>',
            *(f"<script>\n{_asset(name)}</script>" for name in scripts),
            "</body></html>",
            "",
        ]
    )


_DETAILS = ("trace", "allocation")


def _asset(name: str) -> str:
    return (files("nash_swarm.suite") / "assets" / name).read_text(encoding="utf-8")


def _heading(title: str, line: str) -> str:
    return f"<header><h1>{escape(title)}</h1><p>{escape(line)}</p></header>"


def _table(model: str, rows: Sequence[Row]) -> str:
    """The table without a script; `report.js` makes it sortable."""
    columns = [column for column in _COLUMNS if any(getattr(row, column.field) is not None for row in rows)]
    heads = ["<th scope='col'>method</th><th scope='col' title='budget, bits per parameter'>bits asked</th>"]
    heads += [f"<th scope='col' title='{escape(c.told, quote=True)}'>{escape(c.heading)}</th>" for c in columns]
    heads += ["<th scope='col' title='another method chose the same allocation, which was packed once'>same as</th>"]
    body = [_line(columns, ORIGINAL, reference(rows), "")]
    body += [_line(columns, label, vars(row), row.shares) for row, label in zip(rows, labels(rows), strict=True)]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="All figures of {escape(model)}">'
        f'<table class="sortable"><caption>Click on a column to sort by it.</caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _line(columns: Sequence[Column], label: str, values: Mapping[str, Any], shares: str) -> str:
    cells = [f"<th scope='row'>{escape(label)}</th>"]
    for name, how in (("bits", "g"), *((column.field, column.how) for column in columns)):
        value = values.get(name)
        cells.append(f"<td data-value='{'' if value is None else repr(value)}'>{escape(number(value, how))}</td>")
    return f"<tr>{''.join(cells)}<td class='text'>{escape(shares)}</td></tr>"
