"""Models of a benchmark: loaded once a process, told apart by their weights, and asked once a window."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import torch
from torch import nn

from nash_swarm.models.source import Source, load_source

_lock = threading.Lock()
_loaded: dict[tuple[str, bool], tuple[Source, Remembering]] = {}
_MOST = 1 << 30


def source_of(name: str, trust_remote_code: bool) -> tuple[Source, Remembering]:
    """The model of that name and the same as a reference; only the latest one is kept in memory.

    Raises:
        DataError: there is none.
    """
    key = name, trust_remote_code
    with _lock:
        if key not in _loaded:
            _loaded.clear()
            source = load_source(name, trust_remote_code=trust_remote_code)
            _loaded[key] = source, Remembering(source.model)
        return _loaded[key]


def forget_sources() -> None:
    """Free the memory."""
    with _lock:
        _loaded.clear()


def weights_digest(model: Any) -> str:
    """16 hexadecimal digits that change with the model's configuration and any of its weights."""
    digest = hashlib.blake2b(model.config.to_json_string(use_diff=True).encode(), digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Remembering(nn.Module):
    """A model that remembers its logits, as many as fit into a gigabyte.

    Every cell is compared with the original on the same windows, and the original is the slowest model of all.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._logits: dict[bytes, torch.Tensor] = {}
        self._size = 0

    def can_generate(self) -> bool:
        """Whether the model writes text."""
        return bool(self.model.can_generate())

    def forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
        """The model's output for token ids (1, length); only `logits` of it are remembered."""
        key = input_ids.numpy().tobytes()
        logits = self._logits.get(key)
        if logits is None:
            logits = self.model(input_ids, **options).logits
            if self._size + logits.nbytes <= _MOST:
                self._logits[key] = logits
                self._size += logits.nbytes
        return _Output(logits)


class _Output:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
