"""Results of other tools, from CSV files with whatever columns they came with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError
from nash_swarm.suite.results import read_table
from nash_swarm.suite.rows import PROTOCOL, Row

_BITS = ("bits_per_parameter", "bits_incl_overhead", "bits")
_NAMES = ("method", "tool", "name")
_FULL = 16.0
"""Bits from which on a row is the original and no peer."""


def read_peers(path: str | Path) -> list[dict[str, Any]]:
    """Rows of other tools: `method`, `model`, `bytes`, `bits`, `kl` and `perplexity`; what is not known is `None`.

    The file needs a column for the method (`method`, `tool` or `name`), one for the size (`bytes`, or bits per
    parameter in `bits_per_parameter`, `bits_incl_overhead` or `bits`), and `kl`, `perplexity`, `ppl` or `loss`. Our own
    `results.csv` is such a file. Rows of 16 bits and more are left out.

    Raises:
        DataError: no such file, a column is missing, or a cell that should be a number is none.
    """
    found = []
    for number, line in enumerate(read_table(path), 2):
        where = f"{path}, line {number}"
        method = next((line[name] for name in _NAMES if line.get(name)), None)
        if method is None:
            raise DataError(f"{where}: no method; one of the columns {', '.join(_NAMES)} must name it")
        size = _number(line, "bytes", where)
        bits = next((value for name in _BITS if (value := _number(line, name, where)) is not None), None)
        if size is None and bits is None:
            raise DataError(f"{where}: no size; give bytes or one of {', '.join(_BITS)}")
        kl, loss = _number(line, "kl", where), _number(line, "loss", where)
        perplexity = _number(line, "perplexity", where) or _number(line, "ppl", where)
        if perplexity is None and loss is not None:
            perplexity = math.exp(min(loss, 700.0))
        if kl is None and perplexity is None:
            raise DataError(f"{where}: neither kl nor perplexity, ppl or loss")
        if bits is None or bits < _FULL:
            found.append({
                "method": method, "settings": line.get("settings", ""), "model": line.get("model", ""), "bytes": size,
                "bits": bits, "kl": kl, "perplexity": perplexity,
            })  # fmt: skip
    return found


def beside(peers: tuple[Mapping[str, Any], ...], rows: list[Row]) -> list[dict[str, Any]]:
    """The peers that belong into a picture of these rows of one model and protocol, each with `bytes`.

    A peer that names no model belongs to every one; its bits are taken per parameter of the rows' scope. Peers have
    sizes of files and losses of text, which other protocols do not.
    """
    if not rows or rows[0].protocol != PROTOCOL:
        return []
    parameters = rows[0].parameters
    return [
        {**peer, "bytes": peer["bytes"] if peer["bytes"] is not None else peer["bits"] * parameters / 8}
        for peer in peers
        if peer["model"] in ("", rows[0].model)
    ]


def _number(line: Mapping[str, str], name: str, where: str) -> float | None:
    text = line.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is no {name}") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} is {text}")
    return value
