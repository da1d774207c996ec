"""Folders that only exist in FP8 or MXFP4 are decoded; others that are quantized are refused by the kind's name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.architectures import ARCHITECTURES
from support.bench import Bench
from support.coded import encode_mxfp4, set_quantization, write_fp8, write_mxfp4
from support.models import logits, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.decoding import decode_fp8, decode_mxfp4
from nash_swarm.models.memory import WORKING_MEMORY, memory_needed
from nash_swarm.models.offload import checkpoint_of
from nash_swarm.models.source import load_source

IDS = np.arange(3, 19, dtype=np.int32)[None]


def small_gpt_oss() -> Any:
    small = ARCHITECTURES["gpt-oss"]
    return type(small)(small.model, small.config, {**small.settings, "hidden_size": 64, "intermediate_size": 64}).make()


def holds(model: Any, decoded: dict[str, Any]) -> None:
    state = model.state_dict()
    assert decoded
    for name, values in decoded.items():
        assert state[name].dtype == torch.float32
        assert np.array_equal(state[name].numpy(), values), name


@pytest.mark.parametrize(("block", "ending"), [((32, 32), "_scale_inv"), ((32, 16), "_scale_inv"), (None, "_scale")])
def test_fp8_is_decoded(tmp_path: Path, block: tuple[int, int] | None, ending: str) -> None:
    # hidden size 40 and 72: the last blocks are cut off, which transformers itself refuses
    decoded = write_fp8(tiny_llama(tied=True), tmp_path, block, ending=ending)
    source = load_source(str(tmp_path))
    holds(source.model, decoded)
    assert source.left_out == () and not hasattr(source.model.config, "quantization_config")
    assert torch.isfinite(logits(source.model, IDS)).all()
    # an ordinary model from here on
    source.model.save_pretrained(tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    assert torch.equal(logits(plain, IDS), logits(source.model, IDS))


def test_fp8_is_read_block_by_block(tmp_path: Path) -> None:
    write_fp8(tiny_llama(tied=False), tmp_path, (32, 32))
    assert memory_needed(tmp_path) == WORKING_MEMORY + 8 * sum(p.numel() for p in tiny_llama(tied=False).parameters())
    inside, outside = load_source(str(tmp_path)).model, _held_to_disk(tmp_path)
    assert checkpoint_of(outside) is not None
    assert torch.equal(logits(inside, IDS), logits(outside, IDS))


def _held_to_disk(folder: Path) -> Any:
    from nash_swarm.models.source import _from_disk

    return _from_disk(folder, str(folder), False, None, folder).model


def runs_experts() -> bool:
    """Whether this torch multiplies groups on the CPU, as transformers' experts ask of it (torch 2.8 does not)."""
    try:
        torch._grouped_mm(torch.ones(16, 16), torch.ones(1, 16, 16), offs=torch.tensor([16], dtype=torch.int32))
    except (NotImplementedError, AttributeError):
        return False
    except RuntimeError:  # of another kind: it is there, and particular about types
        return True
    return True


EXPERTS = pytest.mark.skipif(not runs_experts(), reason="this torch runs no experts of transformers' on the CPU")


@EXPERTS
def test_mxfp4_is_decoded(tmp_path: Path) -> None:
    decoded = write_mxfp4(small_gpt_oss(), tmp_path)
    source = load_source(str(tmp_path))
    holds(source.model, decoded)
    assert source.left_out == () and not hasattr(source.model.config, "quantization_config")
    assert torch.isfinite(logits(source.model, IDS)).all()
    with pytest.raises(UsageError, match=r"MXFP4, which cannot be read block by block"):
        _held_to_disk(tmp_path)


def test_transformers_decodes_mxfp4_to_the_same(tmp_path: Path) -> None:
    write_mxfp4(small_gpt_oss(), tmp_path)
    theirs = pytest.importorskip("transformers.integrations.mxfp4").convert_moe_packed_tensors
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_blocks")]:
        blocks, scales = tensors[name], tensors[name.replace("_blocks", "_scales")]
        assert torch.equal(decode_mxfp4(blocks, scales), theirs(blocks, scales, dtype=torch.float32))


def test_every_code_and_exponent() -> None:
    blocks = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    scales = torch.arange(100, 116, dtype=torch.uint8)[None]
    codes = np.stack([np.arange(256) & 15, np.arange(256) >> 4], -1).reshape(1, 16, 32)
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    expected = np.where(codes > 7, -1, 1) * table[codes & 7] * 2.0 ** (np.arange(100, 116) - 127)[None, :, None]
    assert np.array_equal(decode_mxfp4(blocks, scales).numpy(), expected.reshape(1, -1).astype(np.float32))
    assert encode_mxfp4(np.ones((2, 64), np.float32))[2].tolist() == np.ones((2, 64)).tolist()


@pytest.mark.parametrize("kind", ["fp8", pytest.param("mxfp4", marks=EXPERTS)])
def test_they_are_compressed(bench: Bench, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "source"
    if kind == "fp8":
        decoded = write_fp8(AutoModelForCausalLM.from_pretrained(bench.model, dtype=torch.float32), folder, (64, 64))
    else:
        decoded = write_mxfp4(small_gpt_oss(), folder)
    AutoTokenizer.from_pretrained(bench.model).save_pretrained(folder)
    made = ns.compress(
        str(folder), out=tmp_path / "out", bits=5.0, text=str(bench.text), windows=2, eval_windows=1, contest=False,
        effort="fast", quiet=True,
    )  # fmt: skip
    assert decoded and made.evaluation is not None and made.evaluation.kl is not None and made.evaluation.kl < 0.5
    assert made.file_bytes * 8 <= made.allocation.budget.total_bits
    packed = ns.load(tmp_path / "out")
    assert torch.isfinite(logits(packed, IDS)).all()
    packed.save_pretrained(tmp_path / "again")


@pytest.mark.parametrize("kind", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "nvfp4", "fbgemm_fp8"])
def test_others_are_refused_by_their_name(bench: Bench, tmp_path: Path, kind: str) -> None:
    shutil.copytree(bench.model, tmp_path / "source")
    set_quantization(tmp_path / "source", {"quant_method": kind, "bits": 4})
    with pytest.raises(UsageError, match=f"already quantized by {kind}; give the original"):
        load_source(str(tmp_path / "source"))
    with pytest.raises(UsageError, match=f"already quantized by {kind}; give the original"):
        _held_to_disk(tmp_path / "source")


def test_damaged_ones_are_named(tmp_path: Path) -> None:
    write_fp8(tiny_llama(tied=True), tmp_path, (32, 32))
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    short = tensors[f"{name}_scale_inv"][:1].clone()
    save_file(tensors | {f"{name}_scale_inv": short}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"up_proj.weight': no FP8: codes \(72, 40\) and scales \(1, 2\)"):
        load_source(str(tmp_path))
    del tensors[f"{name}_scale_inv"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"up_proj.weight' is stored in 8 bits, without scales"):
        load_source(str(tmp_path))


def test_scales_of_other_shapes() -> None:
    codes = torch.arange(1, 97, dtype=torch.uint8).reshape(8, 12).view(torch.float8_e4m3fn)
    rows = torch.arange(1.0, 9.0)
    assert torch.equal(decode_fp8(codes, rows, None), codes.float() * rows[:, None])
    exponents = torch.tensor([[126, 127, 128]], dtype=torch.uint8)
    expected = codes.float() * torch.tensor([0.5, 1.0, 2.0]).repeat_interleave(4)
    assert torch.equal(decode_fp8(codes, exponents, None), expected)
    stacked = torch.stack((codes.float(), codes.float())).to(torch.float8_e4m3fn)
    scales = torch.tensor([1.0, 2.0])[:, None, None].expand(2, 2, 3)
    assert torch.equal(decode_fp8(stacked, scales, (4, 4))[1], 2 * codes.float())
    for shape in ((3, 5), (3, 3), (0, 3)):  # 8 rows are not three blocks of one height
        with pytest.raises(DataError, match="no FP8"):
            decode_fp8(codes, torch.ones(shape), None)
    with pytest.raises(DataError, match="no MXFP4"):
        decode_mxfp4(torch.zeros(2, 3, 16, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.uint8))


@pytest.mark.parametrize(
    "block", [[0, 0], ["32", 32], [10**15, 10**15], [10**15, 32], [-1, 5], 7, {"a": 1}, [32], [True, 1e9]]
)
def test_absurd_blocks_are_one_line_and_take_no_memory(tmp_path: Path, block: Any) -> None:
    write_fp8(tiny_llama(tied=True), tmp_path, (32, 32))
    set_quantization(tmp_path, {"quant_method": "fp8", "weight_block_size": block})
    with pytest.raises(DataError) as error:
        load_source(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", ["fp8", ["fp8"], {"quant_method": ["fp8"]}, {"quant_method": 3}, {"bits": 4}])
def test_absurd_kinds_are_refused(tmp_path: Path, values: Any) -> None:
    write_fp8(tiny_llama(tied=True), tmp_path, (32, 32))
    set_quantization(tmp_path, values)
    with pytest.raises((DataError, UsageError)) as error:
        load_source(str(tmp_path))
    assert "\n" not in str(error.value)


def test_blocks_of_128_where_none_are_named(tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    decoded = write_fp8(model, tmp_path, (128, 128))
    set_quantization(tmp_path, {"quant_method": "fp8"})
    holds(load_source(str(tmp_path)).model, decoded)
