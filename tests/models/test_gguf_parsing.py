"""A GGUF file is parsed once while a model is loaded, and gguf is itself again afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nash_swarm.models.gguf_parsing import parsed_once

gguf = pytest.importorskip("gguf")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_one_file_is_parsed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []

    class Counting(gguf.GGUFReader):  # type: ignore[misc]
        def __init__(self, path: Path) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counting)
    with parsed_once():
        reader = gguf.GGUFReader(file)
        assert gguf.GGUFReader(file) is reader
        assert reader.fields["llama.block_count"].parts[-1][0] == 2
    assert parsed == [file]
    gguf.GGUFReader(file)
    assert parsed == [file, file]


def test_an_error_leaves_gguf_as_it_was(file: Path) -> None:
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(RuntimeError), parsed_once():
        assert before[0] is not gguf.GGUFReader
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert table is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert table.get_name("model.layers.1.mlp.up_proj") == "blk.1.ffn_up"
        raise RuntimeError
    assert before == (gguf.GGUFReader, gguf.get_tensor_name_map)
