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
        window: how many of them at most, the last ones; `None` if all.
    """

    spans: tuple[tuple[int, int], ...]
    offset: int
    window: int | None = None


def read_padding(mask: torch.Tensor, batch: int, window: int | None = None) -> Padding | None:
    """What a mask hides, if that is padding, the future, what is before a window, and nothing else.

    Args:
        mask: (batch or 1, heads or 1, queries, keys); where it is boolean, true where a query sees a key.
        batch: number of sequences.
        window: keys that a query sees at most, if the model has such a limit.

    Returns:
        `None` for any other mask: of another window, of several documents in one row, of another type or device.
    """
    if mask.dtype is not torch.bool or mask.ndim != 4 or mask.shape[1] != 1 or not mask.is_cpu or not mask.numel():
        return None
    known = _latest.padding(mask)
    if known is None:
        known = _read(mask, window)
        _latest.keep(mask, known)
    padding = known[0]
    if padding is not None and len(padding.spans) < batch:
        padding = Padding(padding.spans * batch, padding.offset, padding.window)
    return padding


def _read(mask: torch.Tensor, window: int | None) -> tuple[Padding | None]:
    seen = mask[:, 0].detach().numpy()
    _, queries, keys = seen.shape
    some = np.asarray(seen.any(axis=1))
    first, past = some.argmax(axis=1), keys - some[:, ::-1].argmax(axis=1)
    if not np.all(some[np.arange(len(some)), first]):
        return (None,)
    place, begin, end = np.arange(keys), first[:, None, None], past[:, None, None]
    # a cache of fixed size has keys that no query has come to
    for offset in dict.fromkeys((keys - queries, int(past.max()) - queries)):
        reach = np.arange(offset, offset + queries)[:, None]
        whole = (place >= begin) & (place < end) & (place <= reach)
        for limit in (None, window)[: 1 if window is None else 2]:
            shown = whole if limit is None else whole & (place > reach - limit)
            if offset >= 0 and np.array_equal(seen, shown):
                spans = tuple(zip(first.tolist(), past.tolist(), strict=True))
                return (Padding(spans, offset, limit),)
    return (None,)


class _Latest(threading.local):
    """The thread's latest mask, which layers of a forward pass are given one after the other, and what was read off."""

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
