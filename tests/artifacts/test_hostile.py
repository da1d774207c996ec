"""Damaged and hostile files, many thousand of them: our own error, in time, within memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fuzzing import small_gguf

from nash_swarm.errors import DataError
from nash_swarm.files.gguf_header import read_header
from nash_swarm.models.source import load_source

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.slow
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "fuzzing.py"), str(tmp_path), "0", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT.parent)},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert sum(kind["inputs"] for kind in result["found"].values()) >= 20_000
    # weights whose author computes checksums are weights, whatever they are; other damage is hardly ever harmless
    found = {name: kind for name, kind in result["found"].items() if name != "load, weights"}
    assert all(kind["refused"] > 0.3 * kind["inputs"] for kind in found.values())
    assert result["grown"] < 400e6


def test_a_small_gguf_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    small_gguf(path)
    header = read_header(path)
    assert header.numbers["llama.block_count"] == 1 and header.elements["token_embd.weight"] == 40 * 32
    source = load_source(str(path))
    assert source.model.config.num_hidden_layers == 1


def test_gguf_headers_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    whole = small_gguf(path)
    counts = np.frombuffer(whole[8:24], "<u8")
    assert counts[0] == 12
    for content, message in (
        (b"", "behind its end"),
        (b"GGML" + whole[4:], "no GGUF file"),
        (whole[:4] + b"\x09" + whole[5:], "version 9"),
        (whole[:8] + b"\xff" * 8 + whole[16:], "behind its end"),
        (whole[:16] + b"\xff" * 8 + whole[24:], "behind its end"),
        (whole[:24] + b"\xff" * 8 + whole[32:], "a name of"),
        (whole[:-1000], "cut short"),
        (whole.replace(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight"), "occurs twice"),
        (whole.replace(b"blk.0.attn_q.weight", b"blk.0.attn_\xff.weight"), "no UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_source(str(path))
    at = whole.index(b"llama.block_count") + len(b"llama.block_count") + 4
    path.write_bytes(whole[:at] + (10**8).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(DataError, match="not plausible"):
        load_source(str(path))
