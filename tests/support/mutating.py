"""Seeded damage to bytes and to JSON values: what a careless disk and what a hostile author would do."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

Bytes = bytes | bytearray

SCALARS: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 255, 2**31, 2**32 - 1, 2**63 - 1, 2**64, 10**30, -(10**18), 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "lm_head", "../../../etc/passwd", "/etc/passwd", "a" * 5000, "\u0000",
    "\ud800", "model.layers.0", [], {}, [[]], [0] * 100, {"a": {"b": {}}},
)  # fmt: skip
"""Values of every type and size, names that leave the folder, text that is no text."""


def damaged_bytes(rng: random.Random, content: Bytes, head: int | None = None) -> bytes:
    """One to four of: changed bytes, a cut, an insertion, a piece repeated or lost, an integer overwritten.

    Args:
        rng: decides.
        content: what to damage.
        head: change only the first so many bytes, where formats keep their sizes.
    """
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        end = max(1, min(len(made), head or len(made)))
        at = rng.randrange(end)
        kind = rng.randrange(7)
        if kind == 0:
            made[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1 and made:
            made[min(at, len(made) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2 and rng.random() < 0.3:
            del made[at:]
        elif kind == 3:
            made[at:at] = rng.choice((b"\xff\xfe", b"\x00" * 9, b"[" * 3000, b'{"a":' * 2000, rng.randbytes(8)))
        elif kind == 4:
            other = rng.randrange(end)
            made[at : at + 16] = made[other : other + 16]
        elif kind == 5:
            del made[at : at + rng.randint(1, 16)]
        else:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, -1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 2), 10**6, 10**4))
            made[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(made)


def damaged_values(rng: random.Random, values: Any) -> Any:
    """JSON values with one to three places changed, lost, moved or nested hundreds of levels deep."""
    made = copy.deepcopy(values)
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(made))
        if not holders:
            return rng.choice(SCALARS)
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        kind = rng.randrange(7)
        value = holder[key]
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(value, int):
            holder[key] = value + rng.choice((-1, 1, 10**6, 10**9, 10**12, value))
        elif kind == 2 and isinstance(value, str) and value:
            at = rng.randrange(len(value))
            holder[key] = value[:at] + rng.choice("0 xa/.9gé") * rng.choice((1, 1, 9)) + value[at + 1 :]
        elif kind == 3 and isinstance(holder, dict):
            holder[rng.choice(("", "../x", "a" * 999, "model.norm.weight", "digest"))] = value
        elif kind == 4:
            other = rng.choice(holders)
            if isinstance(other, dict) and other:
                holder[key] = copy.deepcopy(other[rng.choice(list(other))])
        elif kind == 5 and rng.random() < 0.2:
            deep: Any = 0
            for _ in range(300):
                deep = [deep]
            holder[key] = deep
        else:
            holder[key] = copy.deepcopy(rng.choice(SCALARS))
    return made


def as_json(values: Any) -> bytes:
    """JSON text of damaged values, NaN and lone surrogates included."""
    return json.dumps(values).encode()


def _holders(values: Any) -> Any:
    left = [values]
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)) and value:
            yield value
            left += value.values() if isinstance(value, dict) else value
