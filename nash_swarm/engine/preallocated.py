"""A cache of transformers' whose tokens are followed by free room, so that another one is not a copy of all before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_NAME = "_nash_swarm_preallocated"
_LEAST, _SHARE = 64, 4
"""Free room: for this many tokens, or for a share of those that there are, whichever is more."""
_TOGETHER = 8
"""Layers that share a run of memory: no more of them are there twice while it grows, and one call shows them all."""


@dataclass
class _Run:
    """Memory of some layers that follow each other.

    Attributes:
        first: the first layer.
        storage: float32 (2 * layers, 1, heads, room, size): keys and values of each layer in turn.
        filled: tokens in it; those that a window has passed stay until the memory grows.
        limit: how many of them the layers show at most, the last ones; `None` if all.
    """

    first: int
    storage: torch.Tensor
    filled: int
    limit: int | None

    def shown(self) -> tuple[torch.Tensor, ...]:
        """What the layers have: views of the storage."""
        start = 0 if self.limit is None else max(0, self.filled - self.limit)
        return self.storage.narrow(3, start, self.filled - start).unbind(0)


class PreallocatedCache:
    """The keys and values of a `DynamicCache`'s layers, in memory with room behind them.

    It is found in the cache itself, which still has plain tensors: views of what is filled. Whoever shortens, reorders
    or replaces them has other tensors there, and then this is made anew with memory of its own; nothing that anyone
    holds is written over. It changes with the cache, so that of two that share their tensors one at most goes on in
    the same memory.

    Attributes:
        most: the largest number of tokens that a layer has in memory.
        kept: address of what `decoder_stack.KEPT` describes.
    """

    def __init__(self, layers: Sequence[Any], heads: int, size: int) -> None:
        self._runs: list[_Run] = []
        self._views = _states(layers)
        alike = groupby(range(len(layers)), lambda k: (_limit(layers[k]), layers[k].keys.shape[2]))
        for (limit, tokens), group in alike:
            places = list(group)
            for first in range(places[0], places[-1] + 1, _TOGETHER):
                count = 2 * (min(first + _TOGETHER, places[-1] + 1) - first)
                self._runs.append(_Run(first, layers[0].keys.new_empty((count, 1, heads, 0, size)), tokens, limit))
        self._places: list[int] = []
        self._kept = np.empty(0, np.int64)
        for run in self._runs:
            self._grow(run, layers)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy makes its own, and a pickle is read where nash-swarm is not
        return dict, ()

    @staticmethod
    def of(past: Any, windows: Sequence[int | None], heads: int, size: int) -> PreallocatedCache | None:
        """That of a cache whose first layers hold one sequence in float32, with room for a token; or `None`.

        Args:
            past: of transformers.
            windows: of each layer of the model, how many tokens it sees at most.
            heads, size: of keys.
        """
        if not PreallocatedCache.is_known(past) or len(past.layers) < len(windows):
            return None
        layers = past.layers[: len(windows)]
        found = past.__dict__.get(_NAME)
        if not isinstance(found, PreallocatedCache) or not found._is_of(layers):
            tokens = layers[0].get_seq_length()
            fit = all(_fits(*each, tokens, heads, size) for each in zip(layers, windows, strict=True))
            found = past.__dict__[_NAME] = PreallocatedCache(layers, heads, size) if fit else None
        else:
            for run in found._runs:
                if run.filled == run.storage.shape[3]:
                    found._grow(run, layers)
        return found

    @staticmethod
    def is_known(past: Any) -> bool:
        """Whether a cache is a plain `DynamicCache` that keeps its tokens where they are."""
        kinds = _kinds()
        return (
            kinds is not None
            and type(past) is kinds[0]
            and not getattr(past, "offloading", False)
            and all(type(layer) in kinds[1] and not getattr(layer, "record_past", False) for layer in past.layers)
        )

    @property
    def most(self) -> int:
        """See the class."""
        return max(run.filled for run in self._runs)

    @property
    def kept(self) -> int:
        """See the class."""
        places = [run.storage.data_ptr() for run in self._runs]
        if places != self._places:
            self._places, self._kept = places, _kept(self._runs)
        return int(self._kept.ctypes.data)

    def add(self, layers: Sequence[Any]) -> None:
        """One more token has been written behind the others."""
        self._views = []
        for run in self._runs:
            run.filled += 1
            self._views.extend(run.shown())
            if run.limit is not None:
                for layer in layers[run.first : run.first + len(run.storage) // 2]:
                    layer.cumulative_length += 1
        self._kept[:, -1] += 1
        _show(layers, self._views)

    def _is_of(self, layers: Sequence[Any]) -> bool:
        states = _states(layers)
        return len(states) == len(self._views) and all(map(is_, states, self._views))

    def _grow(self, run: _Run, layers: Sequence[Any]) -> None:
        first, (count, *shape, _, size) = 2 * run.first, run.storage.shape
        tokens = self._views[first].shape[2]
        room = tokens + max(_LEAST, tokens // _SHARE)
        larger = run.storage.new_empty((count, *shape, room, size))
        # whoever pickles the tensors gets all of their memory, and must not get what happened to be there
        larger.narrow(3, tokens, room - tokens).zero_()
        filled = larger.narrow(3, 0, tokens).unbind(0)
        for place, target in enumerate(filled, first):
            target.copy_(self._views[place])
            self._views[place] = target
        run.storage, run.filled, self._places = larger, tokens, []
        _show(layers[run.first :], filled)  # so that what they had is freed


def _limit(layer: Any) -> int | None:
    """Tokens that a layer of the cache keeps at most."""
    return layer.sliding_window - 1 if layer.is_sliding else None


def _states(layers: Sequence[Any]) -> list[torch.Tensor]:
    return [states for layer in layers for states in (layer.keys, layer.values)]


def _show(layers: Sequence[Any], views: Sequence[torch.Tensor]) -> None:
    for layer, keys, values in zip(layers, views[::2], views[1::2], strict=False):
        layer.keys, layer.values = keys, values


def _kept(runs: Sequence[_Run]) -> npt.NDArray[np.int64]:
    rows = []
    for run in runs:
        states = run.storage.unbind(0)
        for keys, values in zip(states[::2], states[1::2], strict=True):
            strides = (keys.stride(1), keys.stride(2), values.stride(1), values.stride(2))
            rows.append((keys.data_ptr(), values.data_ptr(), *strides, run.filled))
    return np.array(rows, np.int64)


def _fits(layer: Any, window: int | None, tokens: int, heads: int, size: int) -> bool:
    """Whether a layer of the cache has all of `tokens` tokens that a layer of the model sees, as kernels read them."""
    if not layer.is_initialized or layer.get_seq_length() != tokens:
        return False
    limit = _limit(layer)
    if limit is not None and (window is None or limit < 1 or limit != window - 1):
        return False
    shape = (1, heads, tokens if limit is None else min(tokens, limit), size)
    return all(_is_readable(states, shape) for states in (layer.keys, layer.values))


def _is_readable(states: Any, shape: tuple[int, ...]) -> bool:
    return (
        type(states) is torch.Tensor
        and states.dtype is torch.float32
        and states.is_cpu
        and states.shape == shape
        and states.stride(3) == 1
        and states.numel() > 0
        and not states.requires_grad
    )


@cache
def _kinds() -> tuple[Any, tuple[Any, ...]] | None:
    """The cache, and the kinds of its layers that are keys and values one after the other and nothing else."""
    from transformers import cache_utils

    plain, sliding = cache_utils.DynamicLayer, getattr(cache_utils, "DynamicSlidingWindowLayer", None)
    if not _is_plain(plain(), None):
        return None
    kinds = (plain,) if sliding is None or not _is_plain(sliding(sliding_window=5), 4) else (plain, sliding)
    return cache_utils.DynamicCache, kinds


def _is_plain(layer: Any, limit: int | None) -> bool:
    """Whether a layer keeps the last `limit` tokens, and goes on with the tensors that it is given."""
    keys, values = torch.arange(24.0).view(2, 1, 2, 3, 2).unbind(0)
    layer.update(keys, values)
    before = dict(vars(layer))
    layer.keys, layer.values = (torch.cat([part, part[:, :, :1]], 2) for part in (keys, values))
    changing = {"keys", "values"}
    if limit is not None:
        if before.get("cumulative_length") != 3 or _limit(layer) != limit:
            return False
        layer.cumulative_length += 1
        changing.add("cumulative_length")
    shown = layer.get_seq_length() == 4
    whole = [torch.cat([part, part[:, :, :1], part], 2) for part in (keys, values)]
    after = layer.update(keys, values)
    grown = all(map(torch.equal, after, whole))
    if limit is None:
        grown = grown and after[0] is layer.keys and after[1] is layer.values
    last = [part if limit is None else part[:, :, -limit:] for part in whole]
    kept = all(map(torch.equal, (layer.keys, layer.values), last))
    rest = all(vars(layer).get(name) is value for name, value in before.items() if name not in changing)
    return shown and grown and kept and rest and vars(layer).keys() == before.keys() and layer.get_seq_length() == 7
