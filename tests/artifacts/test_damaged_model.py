"""No damage to a packed model on disk gets through: it is a data error before anything runs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.layouts import layouts
from support.models import logits

import nash_swarm as ns
from nash_swarm.artifacts.checks import check_files
from nash_swarm.artifacts.packed_config import PackedConfig, PackedEntry, config_digest
from nash_swarm.artifacts.packed_model import is_packed, read_config
from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.native.layout import TensorLayout

VOLATILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


@settings(max_examples=120)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@example(0.0, 1)
@example(0.01, 0x0F)
def test_no_changed_byte_gets_through(llama_folder: Path, tmp_path: Path, where: float, change: int) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(llama_folder, copy)
    content = bytearray((llama_folder / "model.safetensors").read_bytes())
    header = int.from_bytes(content[:8], "little")
    # half of the changes in the header, which is the smaller part
    at = (
        int(where * 2 * (8 + header))
        if where < 0.5
        else 8 + header + int((2 * where - 1) * (len(content) - 8 - header))
    )
    before = content[at]
    content[at] ^= change
    (copy / "model.safetensors").write_bytes(content)
    try:
        loaded = ns.load(copy)
    except DataError as error:
        assert "model.safetensors" in str(error)
    else:
        # only space between the header's values may differ
        assert (at < 8 + header and chr(before) in ' "{') or b"format" in content[at - 30 : at + 30]
        ids = np.arange(20, dtype=np.int32)[None]
        assert torch.equal(logits(loaded, ids), logits(ns.load(llama_folder), ids))


def test_every_type_in_the_header_is_checked(llama_folder: Path, copy: Path) -> None:
    content = (llama_folder / "model.safetensors").read_bytes()
    for old, new in ((b'"F16"', b'"I16"'), (b'"F16"', b'"U16"'), (b'"U8"', b'"I8"')):
        assert content.count(old) > 1
        (copy / "model.safetensors").write_bytes(content.replace(old, new, 1))
        (copy / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
        with pytest.raises(DataError, match="damaged"):
            ns.load(copy)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999])
def test_truncated_weights_are_refused(copy: Path, share: float) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="damaged or cut short"):
        ns.load(copy)


def test_missing_files_are_named(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors|copy"):
        ns.load(copy)
    (copy / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json"):
        ns.load(copy)
    with pytest.raises(DataError, match="no packed model"):
        ns.load(tmp_path / "nowhere")


def changed(copy: Path, change: dict[str, Any], place: str | None = "quantization_config") -> Path:
    values = json.loads((copy / "config.json").read_text())
    (values if place is None else values[place]).update(change)
    (copy / "config.json").write_text(json.dumps(values))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "no model packed"),
        ({"format": 4}, "newer"),
        ({"strategies": [7]}, "strategies"),
        ({"strategies": None}, "strategies"),
        ({"tensors": ["a"]}, "tensors"),
        ({"tensors": {"lm_head": "dense"}}, "entry of tensor"),
        ({"tensors": {}}, "."),
        ({"dense": {}}, "."),
        ({"heads": {"lm_head": "nothing"}}, "no packed embedding"),
        ({"parameters": -1}, "parameter count"),
        ({"parameters": True}, "parameter count"),
        ({"scope": "half"}, "scope"),
    ],
)
def test_damaged_packed_configurations_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ns.load(changed(copy, change))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"model_type": "llama"}', '{"quantization_config": 3}']
)
def test_other_json_is_no_packed_model(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    assert not is_packed(copy)
    with pytest.raises(DataError, match=r"config\.json|no packed model"):
        ns.load(copy)


def signed(copy: Path) -> Path:
    """The folder with a digest that fits its configuration, as somebody who knows the format would write it."""
    values = json.loads((copy / "config.json").read_text())
    return changed(copy, {"digest": config_digest(values)})


def test_a_changed_bit_anywhere_in_the_configuration_is_refused_or_means_nothing(copy: Path) -> None:
    path = copy / "config.json"
    content = path.read_bytes()
    values = json.loads(content)
    meaningless = 0
    for at in range(len(content)):
        for bit in (at % 8, (at + 3) % 8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read_config(copy)
            except DataError:
                continue
            meaningless += 1
            now = json.loads(damaged)
            # space between values, and what nothing depends on
            assert {k: v for k, v in now.items() if k in values and k not in VOLATILE} == {
                k: v for k, v in values.items() if k not in VOLATILE
            }
    assert meaningless < len(content)


@pytest.mark.parametrize("change", [{"rms_norm_eps": 1e-5}, {"rope_theta": 1.0}, {"hidden_act": "gelu"}, {"new": 1}])
def test_a_changed_architecture_is_refused_however_it_is_loaded(copy: Path, change: dict[str, Any]) -> None:
    changed(copy, change, None)
    for load in (ns.load, transformers.AutoModelForCausalLM.from_pretrained):
        with pytest.raises(DataError, match="digest"):
            load(copy)


def test_configurations_without_a_digest_are_refused(copy: Path) -> None:
    with pytest.raises(DataError, match="digest"):
        ns.load(changed(copy, {"digest": None}))


def test_models_saved_by_transformers_have_a_digest(llama_folder: Path, tmp_path: Path) -> None:
    model = ns.load(llama_folder)
    model.config.use_cache = False
    model.save_pretrained(tmp_path / "again")
    again = ns.load(tmp_path / "again")
    assert again.config.use_cache is False
    ids = np.arange(20, dtype=np.int32)[None]
    assert torch.equal(logits(again, ids), logits(model, ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "not plausible"),
        ({"num_hidden_layers": 9_999}, "more layers than"),
        ({"hidden_size": 10**12}, "."),
        ({"head_dim": 10**10}, "."),
        ({"vocab_size": 10**10}, "."),
        ({"model_type": "nothing"}, "."),
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}, "."),
    ],
)
def test_configurations_that_ask_for_too_much_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    signed(changed(copy, change, None))
    with pytest.raises(DataError, match=message):
        ns.load(copy)


def test_nothing_but_safetensors_is_read(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(DataError, match="adapter_config"):
        ns.load(copy)
    (copy / "adapter_config.json").unlink()
    (copy / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.zeros(3)}, copy / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"safetensors"):
        ns.load(copy)


def test_a_flipped_bit_in_every_tensor_is_found(llama_folder: Path, copy: Path) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    config = read_config(copy)
    tensors = {
        name: facts["data_offsets"] for name, facts in json.loads(content[8:size]).items() if "data" in str(facts)
    }
    assert set(tensors) == set(config.dense) | {f"{name}.packed" for name in config.tensors}
    for name, (start, end) in tensors.items():
        for at in (start, (start + end) // 2, end - 1):
            damaged = bytearray(content)
            damaged[size + at] ^= 16
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=re.escape(repr(name))):
                check_files([path], config)


@pytest.mark.parametrize("blocks", [1, 3])
def test_another_number_of_blocks_is_refused(copy: Path, blocks: int) -> None:
    signed(changed(copy, {"num_hidden_layers": blocks}, None))
    for load in (ns.load, transformers.AutoModelForCausalLM.from_pretrained):
        with pytest.raises(DataError, match="architecture"):
            load(copy)


def test_a_damaged_report_is_refused(copy: Path) -> None:
    (copy / "nash_swarm.json").write_text("{")
    with pytest.raises(DataError, match=r"nash_swarm\.json"):
        ns.load(copy)


@st.composite
def entries(draw: st.DrawFn) -> PackedEntry:
    layout = replace(draw(layouts()), start=0)
    digits = f"{draw(st.integers(0, 2**64 - 1)):016x}"
    return PackedEntry(layout, draw(st.booleans()), draw(st.integers(0, 10**11)), digits)


@given(entries(), st.sampled_from(["model", "linear"]), st.integers(1, 10**12))
def test_a_packed_configuration_comes_back(entry: PackedEntry, scope: str, parameters: int) -> None:
    heads = {"head": "m"} if entry.layout.kind == "tied" else {}
    config = PackedConfig((2, 4), scope, parameters, {"m": entry}, {"norm": "0" * 16}, heads)
    assert PackedConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(st.text(max_size=30) | st.from_regex(r"(linear|tied) \d+x\d+ g\d+ a\d+x\d+ (-|o?b?w?) \d+ [0-9a-f]{16}"))
def test_any_entry_is_parsed_or_refused(text: str) -> None:
    try:
        entry = PackedEntry.parse("m", text)
    except DataError as error:
        assert "'m'" in str(error)
    else:
        assert entry.layout.agents > 0 and isinstance(entry.layout, TensorLayout)
