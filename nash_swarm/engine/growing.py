"""A cache of transformers' whose tokens are followed by free room, so that another one is not a copy of all before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.engine.attention import readable

_NAME = "_nash_swarm_growing"
_LEAST, _SHARE = 64, 4
"""Free room: for this many tokens, or for a share of those that there are, whichever is more."""
_TOGETHER = 8
"""Layers that share a run of memory: no more of them are there twice while it grows, and one call shows them all."""


class GrowingCache:
    """The keys and values of a `DynamicCache`'s layers, in memory with room behind them.

    It is found in the cache itself, which still has plain tensors: views of what is filled. Whoever shortens, reorders
    or replaces them has other tensors there, and then this is made anew with memory of its own; nothing that anyone
    holds is written over. It changes with the cache, so that of two that share their tensors one at most goes on in
    the same memory.

    Attributes:
        tokens: how many are kept.
        kept: address of what `kernels.decoder_stack.KEPT` describes.
    """

    def __init__(self, layers: Sequence[Any], heads: int, size: int) -> None:
        self.tokens = int(layers[0].keys.shape[2])
        first: torch.Tensor = layers[0].keys
        shares = [2 * len(layers[k : k + _TOGETHER]) for k in range(0, len(layers), _TOGETHER)]
        self._storages = [first.new_empty((share, 1, heads, 0, size)) for share in shares]
        self._views = _states(layers)
        self._places: list[int] = []
        self._kept = np.empty(0, np.int64)
        self._grow(layers)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy makes its own, and a pickle is read where nash-swarm is not
        return dict, ()

    @staticmethod
    def of(past: Any, count: int, heads: int, size: int) -> GrowingCache | None:
        """That of a cache whose first `count` layers hold one sequence in float32, with room for a token; or `None`."""
        if not GrowingCache.is_known(past) or len(past.layers) < count:
            return None
        layers = past.layers[:count]
        found = past.__dict__.get(_NAME)
        if not isinstance(found, GrowingCache) or not found._is_of(layers):
            if not all(_alike(layer, layers[0], heads, size) for layer in layers):
                return None
            found = past.__dict__[_NAME] = GrowingCache(layers, heads, size)
        elif found.tokens == found._storages[0].shape[3]:
            found._grow(layers)
        return found

    @staticmethod
    def is_known(past: Any) -> bool:
        """Whether a cache is a plain `DynamicCache` that keeps its tokens where they are."""
        kinds = _kinds()
        return (
            kinds is not None
            and type(past) is kinds[0]
            and not getattr(past, "offloading", False)
            and all(type(layer) is kinds[1] for layer in past.layers)
        )

    @property
    def kept(self) -> int:
        """See the class."""
        places = [storage.data_ptr() for storage in self._storages]
        if places != self._places:
            self._places, self._kept = places, _kept(self._storages)
        return int(self._kept.ctypes.data)

    def add(self, layers: Sequence[Any]) -> None:
        """One more token has been written behind the others."""
        self.tokens += 1
        filled = (storage.narrow(3, 0, self.tokens).unbind(0) for storage in self._storages)
        self._views = list(chain.from_iterable(filled))
        _show(layers, self._views)

    def _is_of(self, layers: Sequence[Any]) -> bool:
        states = _states(layers)
        return len(states) == len(self._views) and all(map(is_, states, self._views))

    def _grow(self, layers: Sequence[Any]) -> None:
        room, first = self.tokens + max(_LEAST, self.tokens // _SHARE), 0
        for k, (count, *shape, _, size) in enumerate([storage.shape for storage in self._storages]):
            larger = self._storages[k].new_empty((count, *shape, room, size))
            # whoever pickles the tensors gets all of their memory, and must not get what happened to be there
            larger.narrow(3, self.tokens, room - self.tokens).zero_()
            filled = larger.narrow(3, 0, self.tokens).unbind(0)
            for target, place in zip(filled, range(first, first + count), strict=True):
                target.copy_(self._views[place])
                self._views[place] = target
            self._storages[k] = larger
            _show(layers[first // 2 :], filled)  # so that what they had is freed
            first += count


def _states(layers: Sequence[Any]) -> list[torch.Tensor]:
    return [states for layer in layers for states in (layer.keys, layer.values)]


def _show(layers: Sequence[Any], views: Sequence[torch.Tensor]) -> None:
    for layer, keys, values in zip(layers, views[::2], views[1::2], strict=False):
        layer.keys, layer.values = keys, values


def _kept(storages: Sequence[torch.Tensor]) -> npt.NDArray[np.int64]:
    rows = []
    for storage in storages:
        states = storage.unbind(0)
        for keys, values in zip(states[::2], states[1::2], strict=True):
            strides = (keys.stride(1), keys.stride(2), values.stride(1), values.stride(2))
            rows.append((keys.data_ptr(), values.data_ptr(), *strides))
    return np.array(rows, np.int64)


def _alike(layer: Any, first: Any, heads: int, size: int) -> bool:
    if not layer.is_initialized:
        return False
    keys, values = layer.keys, layer.values
    return (
        readable(keys, heads, size)
        and readable(values, heads, size)
        and keys.shape == values.shape == first.keys.shape
        and not (keys.requires_grad or values.requires_grad)
    )


@cache
def _kinds() -> tuple[Any, Any] | None:
    """The cache and its layers; `None` if there is more to a layer than keys and values one after the other."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    keys, values = torch.arange(24.0).view(2, 1, 2, 3, 2).unbind(0)
    layer = DynamicLayer()
    layer.update(keys, values)
    before = dict(vars(layer))
    layer.keys, layer.values = torch.cat([keys, keys], 2), torch.cat([values, values], 2)
    shown = layer.get_seq_length() == 6
    after = layer.update(keys, values)
    expected = torch.cat([keys, keys, keys], 2), torch.cat([values, values, values], 2)
    grown = all(map(torch.equal, after, expected)) and after[0] is layer.keys and after[1] is layer.values
    rest = all(vars(layer).get(name) is value for name, value in before.items() if name not in ("keys", "values"))
    known = shown and grown and rest and vars(layer).keys() == before.keys() and layer.get_seq_length() == 9
    return (DynamicCache, DynamicLayer) if known else None
