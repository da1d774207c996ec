"""Files that earlier versions wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from support.models import allocate, logits, tiny_llama

import nash_swarm as ns
from nash_swarm.artifacts.packed_config import config_digest
from nash_swarm.names import Levels


@pytest.mark.parametrize("levels", get_args(Levels))
def test_scale_codes_of_eight_bits_are_read_as_ever(levels: Levels, tmp_path: Path) -> None:
    """Format 2 had no others."""
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, levels=levels, quiet=True)
    tensors = tuple(replace(tensor, scale_bits=8) for tensor in game.tensors)
    memory = np.concatenate([tensor.memory(game.strategies) for tensor in tensors])
    assert (memory > game.memory).all()
    packed = ns.pack(model, allocate(replace(game, tensors=tensors, memory=memory)), quantizer="rtn", quiet=True)
    ns.save(packed, tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    values = json.loads(config.read_text())
    flags = [entry.split()[4] for entry in values["quantization_config"]["tensors"].values()]
    assert not any("s" in each for each in flags)
    values["quantization_config"]["format"] = 2
    values["quantization_config"]["digest"] = config_digest(values)
    config.write_text(json.dumps(values))
    ids = np.arange(20, dtype=np.int32)[None]
    assert torch.equal(logits(ns.load(tmp_path / "out"), ids), logits(packed, ids))
