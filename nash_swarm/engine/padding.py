"""Which keys the sequences of a padded batch have: read off the mask that transformers makes, once a forward pass."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Padding:
    """The keys of every sequence of a batch; what stands before and behind them is padding.

    Attributes:
        spans: for each sequence its first key and the one behind its last.
        offset: place of the first query among the keys; a query sees the keys of its sequence up to its own place.
    """

    spans: tuple[tuple[int, int], ...]
    offset: int


def read_padding(mask: torch.Tensor, batch: int) -> Padding | None:
    """What a mask hides, if that is padding and the future and nothing else.

    Args:
        mask: (batch or 1, heads or 1, queries, keys); where it is boolean, true where a query sees a key.
        batch: number of sequences.

    Returns:
        `None` for any other mask: of a window, of several documents in one row, of another type, on another device.
    """
    if mask.dtype is not torch.bool or mask.ndim != 4 or mask.shape[1] != 1 or not mask.is_cpu or not mask.numel():
        return None
    known = _latest.padding(mask)
    if known is None:
        known = _read(mask)
        _latest.keep(mask, known)
    padding = known[0]
    if padding is not None and len(padding.spans) < batch:
        padding = Padding(padding.spans * batch, padding.offset)
    return padding


def _read(mask: torch.Tensor) -> tuple[Padding | None]:
    seen = mask[:, 0].detach().numpy()
    _, queries, keys = seen.shape
    last = seen[:, -1]
    first, count = last.argmax(axis=1), last.sum(axis=1)
    if not count.all():
        return (None,)
    past = first + count
    place, begin, end = np.arange(keys), first[:, None, None], past[:, None, None]
    # a cache of fixed size has keys that no query has come to
    for offset in dict.fromkeys((keys - queries, int(past.max()) - queries)):
        reach = np.arange(offset, offset + queries)[:, None]
        if offset >= 0 and np.array_equal(seen, (place >= begin) & (place < end) & (place <= reach)):
            spans = tuple(zip(first.tolist(), past.tolist(), strict=True))
            return (Padding(spans, offset),)
    return (None,)


class _Latest(threading.local):
    """The thread's latest mask, which all layers of a forward pass are given, and what was read off it."""

    _mask: weakref.ref[torch.Tensor] | None = None
    _version: int = -1
    _found: tuple[Padding | None] = (None,)

    def padding(self, mask: torch.Tensor) -> tuple[Padding | None] | None:
        """What was kept for this very tensor, if it has not changed since."""
        if self._mask is None or self._mask() is not mask or self._version != mask._version:
            return None
        return self._found

    def keep(self, mask: torch.Tensor, found: tuple[Padding | None]) -> None:
        """Until the next one."""
        if not mask.is_inference():  # such tensors do not count their changes
            self._mask, self._version, self._found = weakref.ref(mask), mask._version, found


_latest = _Latest()
