"""Models that stay on disk give the same bytes as models in memory, and take the memory of a block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.bench import Bench
from support.models import MODELS, logits

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import COUNTED
from nash_swarm.damage.coupling import couple
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.memory import available_memory, memory_needed
from nash_swarm.models.offload import checkpoint_of, mapped, offloaded, resident
from nash_swarm.models.source import load_source

Ids = Any


@pytest.fixture(scope="module", params=MODELS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model in memory, and the folder it was saved to in several files."""
    model = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("stored")
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return model, folder


def from_disk(folder: Path, scratch: Path) -> Any:
    return offloaded(folder, transformers.AutoConfig.from_pretrained(folder), scratch)


def without_memory(model: Any) -> list[str]:
    return [name for name, tensor in model.state_dict().items() if tensor.is_meta]


def test_it_computes_what_the_model_in_memory_does(stored: tuple[Any, Path], tokens: Ids, tmp_path: Path) -> None:
    model, folder = stored
    disk = from_disk(folder, tmp_path)
    everything = without_memory(disk)
    assert sorted(everything) == sorted(model.state_dict())
    assert torch.equal(logits(disk, tokens), logits(model, tokens))
    assert without_memory(disk) == everything


def test_weights_are_in_memory_as_long_as_they_are_held(stored: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = stored
    disk = from_disk(folder, tmp_path)
    everything = without_memory(disk)
    with resident(disk, ""):
        assert not without_memory(disk)
        for name, tensor in disk.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name])
        shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert (disk.get_input_embeddings().weight is disk.get_output_embeddings().weight) == shared
    assert without_memory(disk) == everything


@pytest.mark.parametrize("damage", ["magnitude", "activation", "fisher"])
def test_games_are_the_same(stored: tuple[Any, Path], tokens: Ids, tmp_path: Path, damage: str) -> None:
    model, folder = stored
    games = [
        ns.measure(one, tokens=tokens, damage=damage, group_size=32, quiet=True)
        for one in (model, from_disk(folder, tmp_path))
    ]
    np.testing.assert_array_equal(games[0].damage, games[1].damage)
    assert games[0].fixed_bits == games[1].fixed_bits and games[0].parameters == games[1].parameters
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def short_text(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> str:
    """So short that windows have fewer than 100 tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(bench.text.read_text()[:2000])
    return str(path)


@pytest.mark.parametrize(
    "choices",
    [
        {"contest": True},
        {"damage": "activation", "quantizer": "rtn", "scope": "linear", "contest": False},
        {"damage": "magnitude", "quantizer": "rtn", "contest": False},
    ],
)
def test_compressing_gives_the_same_bytes(
    bench: Bench, short_text: str, tmp_path: Path, choices: dict[str, Any]
) -> None:
    common = {"bits": 6.0, "text": short_text, "windows": 2, "eval_windows": 2, "quiet": True, **choices}
    ns.compress(str(bench.model), out=tmp_path / "memory", **common)
    model = from_disk(bench.model, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bench.model)
    source = load_source(str(bench.model))
    ns.compress(type(source)(model, tokenizer, source.name), out=tmp_path / "disk", **common)
    # only the model card names the folder
    for name in set(COUNTED) - {"README.md"}:
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "memory"]


def test_a_memory_limit_decides(bench: Bench, tmp_path: Path) -> None:
    needed = memory_needed(bench.model)
    assert needed > 10**9 and memory_needed(tmp_path) == 0 and available_memory() > 10**8
    assert checkpoint_of(load_source(str(bench.model), max_memory=needed).model) is None
    with pytest.raises(UsageError, match=r"needs about 1\.0 GB even block by block"):
        load_source(str(bench.model), max_memory="900MB")
    with pytest.raises(UsageError, match="cannot read the size"):
        load_source(str(bench.model), max_memory="much")
    with pytest.raises(UsageError, match="no local model directory"):
        load_source("smollm2", max_memory="1GB")


def test_what_needs_the_weights_in_memory_is_refused(
    bench: Bench, short_text: str, tokens: Ids, tmp_path: Path
) -> None:
    disk = from_disk(bench.model, tmp_path)
    game = ns.measure(disk, tokens=tokens, damage="activation", quiet=True)
    with pytest.raises(UsageError, match="block by block"):
        couple(disk, game)
    source = load_source(str(bench.model))
    held = type(source)(disk, source.tokenizer, "x")
    with pytest.raises(UsageError, match="block by block"):
        ns.compress(held, bits=6, effort="best", out=tmp_path / "out", text=short_text)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(stored: tuple[Any, Path], tmp_path: Path) -> Path:
    """A model in one file that a test may damage."""
    stored[0].save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_checkpoints_that_do_not_fit_the_model_are_refused(folder: Path, tmp_path: Path) -> None:
    name = next(n for n in load_file(folder / "model.safetensors") if "mlp" in n and n.endswith("weight"))
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(3, 3)}))
    with pytest.raises(DataError, match=r"is \(3, 3\) where the model has"):
        from_disk(folder, tmp_path)
    rewrite(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(UsageError, match="as the model has them"):
        from_disk(folder, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no safetensors weights"):
        from_disk(folder, tmp_path)
    for index in ("{", "[]", '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../b.safetensors"}}', "[" * 9999):
        (folder / "model.safetensors.index.json").write_text(index)
        with pytest.raises(DataError, match=r"index\.json"):
            from_disk(folder, tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    with pytest.raises(DataError, match=r"b\.safetensors"):
        from_disk(folder, tmp_path)


def test_weights_that_are_no_numbers_are_refused_when_they_are_read(folder: Path, tokens: Ids, tmp_path: Path) -> None:
    name = next(n for n in load_file(folder / "model.safetensors") if "mlp" in n and n.endswith("weight"))
    rewrite(folder, lambda tensors: tensors[name].flatten()[3:4].fill_(float("nan")))
    disk = from_disk(folder, tmp_path)
    everything = without_memory(disk)
    with pytest.raises(DataError, match=f"{name.removesuffix('.weight')} holds NaN"):
        ns.measure(disk, tokens=tokens, group_size=32, quiet=True)
    assert without_memory(disk) == everything


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.int64])
def test_mapped_tensors_are_equal_and_leave_no_file(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (torch.arange(3000).reshape(60, 50) % 256).to(dtype)
    made = mapped(tensor, tmp_path)
    assert torch.equal(made, tensor) and made.dtype == dtype
    assert list(tmp_path.iterdir()) == []
    made.add_(1)
    assert not torch.equal(made, tensor)


_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc keeps freed memory below a threshold that grows up to 32 MB: of a model this small that would be nearly all."""


@pytest.mark.slow
def test_peak_memory_is_that_of_a_block(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "support" / "peak_memory.py"

    def run(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **_GIVEN_BACK, "PYTHONPATH": str(script.parents[1])},
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    memory, disk = run("memory"), run("disk")
    weights = memory["parameters"] * 4
    assert memory["digest"] == disk["digest"]
    assert memory["peak"] > 1.5 * weights
    # a block and the packed model, and room for what compressing does with one matrix; 12 GB within 6 GB is a half
    assert disk["peak"] < weights / 3
