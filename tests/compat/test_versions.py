"""A library that has changed is named as such, and data that is damaged is not taken for one."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import transformers
from support.models import tiny_llama

from nash_swarm.calibration.passes import WholeModel, stream_of
from nash_swarm.compat import hf
from nash_swarm.compat.versions import check_api, tried
from nash_swarm.errors import ApiChangedError, DataError, SlowerWarning
from nash_swarm.models.experts import prepare
from nash_swarm.models.source import load_source


def test_the_range_comes_from_the_metadata() -> None:
    assert "<" in tried("transformers") and "<" in tried("torch")
    assert tried("no such library") == ""


@pytest.mark.parametrize("name", ["rename_source_key", "WeightRenaming"])
def test_a_private_name_that_is_gone_is_no_damage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama(tied=False).save_pretrained(tmp_path)
    monkeypatch.delattr(f"transformers.core_model_loading.{name}")
    with pytest.raises(
        ApiChangedError, match=rf"transformers {transformers.__version__} .*{name}.* tried with"
    ) as caught:
        hf.renamer(tiny_llama(tied=False))
    assert not isinstance(caught.value, DataError) and caught.value.exit_code == 1


def test_loading_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama(tied=False).save_pretrained(tmp_path)
    monkeypatch.delattr("transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    with pytest.raises(ApiChangedError, match="MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"):
        load_source(tmp_path)


def test_a_signature_that_changed_is_told_from_damaged_data() -> None:
    def theirs(*, given: int) -> int:
        return given

    with pytest.raises(TypeError) as caught:
        theirs(other=1)  # type: ignore[call-arg]
    check_api(caught.value)  # raised in a test: no call of the package's
    with pytest.raises(AttributeError) as missing:
        transformers.AutoConfig.no_such_method()
    with pytest.raises(ApiChangedError, match="no_such_method"):
        check_api(missing.value)
    with pytest.raises(AttributeError) as data:
        tiny_llama(tied=False).config.no_such_value  # noqa: B018
    check_api(data.value)


class Odd(torch.nn.Module):
    """A block that wants an argument that only its model gives it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args: object, **kwargs: object) -> object:
        self.calls += 1
        if self.calls > 1:
            raise ValueError("one bias is missing")
        return self.inner(*args, **kwargs)


def test_blocks_that_do_not_come_apart_are_named() -> None:
    model = tiny_llama(tied=False)
    model.model.layers = torch.nn.ModuleList(Odd(layer) for layer in model.model.layers)
    with pytest.warns(SlowerWarning, match="slower than block by block: .*one bias is missing"):
        assert isinstance(stream_of(model, torch.arange(16).repeat(2, 1)), WholeModel)


def test_opened_experts_are_copied_and_pickled() -> None:
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4,
    )  # fmt: skip
    torch.manual_seed(0)
    opened = prepare(transformers.MixtralForCausalLM(config).eval())
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        for again in copy.deepcopy(opened), pickle.loads(pickle.dumps(opened)):
            torch.testing.assert_close(again(tokens).logits, opened(tokens).logits, rtol=0, atol=0)
