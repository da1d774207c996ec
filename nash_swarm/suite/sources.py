"""Models and texts of a benchmark: loaded once a process, told apart by their contents, and asked once a window."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nash_swarm.calibration.text import Text, load_text, sample_windows, shortage, warn_left_out
from nash_swarm.models.identity import weights_digest
from nash_swarm.models.source import Source, load_source
from nash_swarm.suite.settings import Settings

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


def identity_of(model: Any) -> list[str]:
    """What tells the model from others: its configuration and its weights."""
    return [str(model.config.to_json_string(use_diff=True)), weights_digest(model)]


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


@dataclass(frozen=True)
class Texts:
    """The texts of a run.

    Attributes:
        calibration: what damage is measured and rounding is done on.
        evaluation: what losses are of; of the calibration text only what is held out.
    """

    calibration: Text
    evaluation: Text

    @classmethod
    def of(cls, settings: Settings) -> Texts:
        """Load them.

        Raises:
            DataError: there is no such text.
        """
        text = load_text(settings.text, chat_template=settings.chat_template)
        if not settings.eval_text:
            return cls(text, text)
        return cls(text, load_text(settings.eval_text, chat_template=settings.chat_template))

    def calibration_windows(self, settings: Settings, source: Source) -> npt.NDArray[np.int32]:
        """Token ids (windows, length) that damage is measured on."""
        return sample_windows(
            self.calibration, source.tokenizer, np.random.default_rng(settings.seed), count=settings.windows,
            length=settings.length, part="calibration", model=source.model,
        )  # fmt: skip

    def evaluation_windows(self, settings: Settings, source: Source) -> npt.NDArray[np.int32]:
        """Token ids (windows, length) that losses are of; warns where the text has fewer than asked for."""
        held_out = self.evaluation.digest == self.calibration.digest
        asked: Any = {
            "count": settings.eval_windows, "length": settings.length, "part": "held-out" if held_out else "all",
            "model": source.model,
        }  # fmt: skip
        windows = sample_windows(self.evaluation, source.tokenizer, np.random.default_rng(settings.seed), **asked)
        warn_left_out(shortage(windows, self.evaluation, **asked))
        return windows
