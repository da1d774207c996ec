"""What the Python interface is given is held to its types: accepted, or a `UsageError`, never a surprise inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import MODELS, VOCABULARY, ByteTokenizer, allocate, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import NashSwarmError, UsageError
from nash_swarm.evaluation.continuation import continue_text
from nash_swarm.models.source import load_source
from nash_swarm.pipeline.tuning import tune

IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 32)).astype(np.int32)


@pytest.fixture(scope="module")
def llama() -> Any:
    return MODELS["tied llama"]()


@pytest.fixture(scope="module")
def played(llama: Any) -> ns.BitGame:
    return ns.measure(llama, tokens=IDS, quiet=True)


@pytest.fixture(scope="module")
def small(llama: Any, played: ns.BitGame) -> Any:
    return ns.pack(llama, allocate(played), quantizer="rtn", quiet=True)


@pytest.mark.parametrize("bits", ["3", True, float("nan"), float("inf"), -1, 0, [3], "many", 1e9])
def test_budgets_that_are_none(bits: Any, played: ns.BitGame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bits per parameter"):
        ns.solve(played, bits=bits)
    with pytest.raises(UsageError, match="bits per parameter"):
        ns.compress("./no-such-model", bits=bits, out=tmp_path / "out")


@pytest.mark.parametrize("size", ["60 potatoes", "", "MB", -5, 0, True, 6e7, [60], b"60MB", float("nan")])
def test_sizes_that_are_none(size: Any, played: ns.BitGame) -> None:
    with pytest.raises(UsageError, match="size"):
        ns.solve(played, size=size)


def test_numbers_of_numpy_are_numbers(played: ns.BitGame) -> None:
    for bits in (40, 40.0, np.float32(40), np.int64(40)):
        assert (
            ns.solve(played, bits=bits, solver="greedy", seed=np.int64(0)).budget.total_bits == 40 * played.parameters
        )
    size = played.largest_bits() // 8
    assert ns.solve(played, size=np.int64(size), solver="greedy").budget == ns.solve(played, size=size).budget


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"solver": None}, "solver must be a name or an instance"), ({"solver": 3}, "solver must be"),
        ({"solver": object()}, "solver must be"), ({"solver": ["nash"]}, "solver must be"),
        ({"seed": -1}, "seed"), ({"seed": 0.5}, "seed"), ({"seed": "0"}, "seed"), ({"seed": None}, "seed"),
        ({"rules": {"keep": {}}}, "rules must be"), ({"rules": ["lm_head=8"]}, "rules must be"),
    ],
)  # fmt: skip
def test_solving(arguments: dict[str, Any], words: str, played: ns.BitGame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        ns.solve(played, bits=6, **arguments)
    with pytest.raises(UsageError, match=words):
        ns.compress("./no-such-model", bits=6, out=tmp_path / "out", **arguments)


def test_a_class_is_no_instance(played: ns.BitGame) -> None:
    from nash_swarm.solvers.greedy import Greedy

    with pytest.raises(UsageError, match="not the class Greedy"):
        ns.solve(played, bits=40, solver=Greedy)  # type: ignore[arg-type]
    assert ns.solve(played, bits=40, solver=Greedy()).solver == "greedy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strategies": "2,3"}, "strategies"), ({"strategies": 4}, "strategies"), ({"strategies": [2.5]}, "strategies"),
        ({"strategies": ["2"]}, "strategies"), ({"strategies": []}, "strategies"), ({"strategies": [7]}, "strategies"),
        ({"strategies": None}, "strategies"), ({"strategies": [True, 2]}, "strategies"),
        ({"group_size": 0}, "group_size"), ({"group_size": -1}, "group_size"), ({"group_size": 33}, "multiple of 32"),
        ({"group_size": "32"}, "group_size"), ({"group_size": 32.0}, "group_size"),
        ({"granularity": "rows"}, "granularity"), ({"granularity": 3}, "granularity"), ({"scope": "all"}, "scope"),
        ({"scope": None}, "scope"), ({"levels": "log"}, "levels"), ({"damage": None}, "damage must be"),
        ({"damage": 3}, "damage must be"), ({"windows": 0}, "windows"), ({"windows": 1.5}, "windows"),
        ({"windows": "all"}, "windows"), ({"seed": -1}, "seed"), ({"length": 0}, "length"),
        ({"length": None}, "length"),
        ({"tokenizer": "gpt2"}, "tokenizer"), ({"tokenizer": 3}, "tokenizer"),
    ],
)  # fmt: skip
def test_measuring(arguments: dict[str, Any], words: str, llama: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("x" * 4000)
    given = {"tokenizer": ByteTokenizer(), "text": str(text), "quiet": True} | arguments
    with pytest.raises(UsageError, match=words):
        ns.measure(llama, **given)
    more = {name: value for name, value in arguments.items() if name not in ("tokenizer", "length", "windows")}
    if more and None not in more.values():
        with pytest.raises(UsageError, match=words):
            ns.compress("./no-such-model", bits=6, out=tmp_path / "out", **more)


@pytest.mark.parametrize("strategies", [[2, 3, 8], (8, 3, 2), np.array([2, 3, 8]), {2, 3, 8}, range(2, 4)])
def test_strategies_come_in_any_collection(strategies: Any, llama: Any) -> None:
    found = ns.measure(llama, damage="magnitude", text=None, strategies=strategies, quiet=True).strategies
    assert found == tuple(sorted(map(int, strategies))) and all(type(bits) is int for bits in found)


@pytest.mark.parametrize(
    "tokens",
    [IDS.astype(np.float32), IDS.astype(str), [[1, 2], [3]], "text", 5, [[2**40] * 8], {"input_ids": IDS}, IDS > 3],
)
def test_tokens_that_are_none(tokens: Any, llama: Any, small: Any) -> None:
    with pytest.raises(NashSwarmError, match="tokens"):
        ns.measure(llama, tokens=tokens, quiet=True)
    with pytest.raises(NashSwarmError, match="tokens"):
        ns.evaluate({"a": llama}, tokens, quiet=True)
    with pytest.raises(NashSwarmError, match="tokens"):
        tune(llama, small, tokens, quiet=True)


def test_tokens_come_as_lists_and_tensors_and_in_any_whole_type(llama: Any, played: ns.BitGame) -> None:
    for tokens in (IDS.tolist(), torch.from_numpy(IDS), IDS.astype(np.int64), IDS.astype(np.uint8)):
        assert np.array_equal(ns.measure(llama, tokens=tokens, quiet=True).damage, played.damage)
    assert ns.evaluate({"a": llama}, IDS.tolist(), quiet=True) == ns.evaluate({"a": llama}, IDS, quiet=True)


@pytest.mark.parametrize("wrong", [None, "gpt2", 3, torch.nn.Linear(2, 2), {}, tiny_llama])
def test_what_is_no_model(wrong: Any, played: ns.BitGame, small: Any, tmp_path: Path) -> None:
    for call in (
        lambda: ns.measure(wrong, tokens=IDS, quiet=True),
        lambda: ns.pack(wrong, allocate(played), quiet=True),
        lambda: ns.evaluate({"a": wrong}, IDS, quiet=True),
        lambda: ns.save(wrong, tmp_path / "out"),
        lambda: ns.couple(wrong, played, quiet=True),
        lambda: tune(wrong, small, IDS, quiet=True),
    ):
        with pytest.raises(UsageError, match="must be a loaded transformers model"):
            call()


def test_a_packed_model_in_the_place_of_the_original(played: ns.BitGame, small: Any) -> None:
    for call in (
        lambda: ns.measure(small, tokens=IDS, quiet=True),
        lambda: ns.pack(small, allocate(played), quiet=True),
        lambda: ns.couple(small, played, quiet=True),
    ):
        with pytest.raises(UsageError, match="already packed by nash-swarm; give the original"):
            call()


def test_a_quantized_model_is_named(llama: Any) -> None:
    other = tiny_llama(tied=True)
    other.is_quantized = True
    other.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UsageError, match=r"already quantized \(by gptq\)"):
        ns.measure(other, tokens=IDS, quiet=True)


def test_files_and_objects_in_each_others_place(llama: Any, played: ns.BitGame, small: Any, tmp_path: Path) -> None:
    for call in (
        lambda: ns.solve("game.npz", bits=3),  # type: ignore[arg-type]
        lambda: ns.solve(allocate(played), bits=3),  # type: ignore[arg-type]
        lambda: ns.pack(llama, "allocation.json"),
        lambda: ns.pack(llama, played),  # type: ignore[arg-type]
        lambda: ns.couple(llama, allocate(played)),  # type: ignore[arg-type]
        lambda: ns.save_game(allocate(played), tmp_path / "g"),  # type: ignore[arg-type]
        lambda: ns.save_allocation(played, tmp_path / "a"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=r"must be of the kind (BitGame|Allocation)"):
            call()
    for wrong in (None, 3, "", "a\0b", b"x"):
        for name, call in (
            ("path", lambda wrong=wrong: ns.save(small, wrong)),
            ("path", lambda wrong=wrong: ns.save_game(played, wrong)),
            ("path", lambda wrong=wrong: ns.save_allocation(allocate(played), wrong)),
            ("path", lambda wrong=wrong: ns.load_game(wrong)),
            ("path", lambda wrong=wrong: ns.load_allocation(wrong)),
            ("out", lambda wrong=wrong: ns.compress("x", bits=3, out=wrong)),
        ):
            with pytest.raises(UsageError, match=f"{name} must be a path"):
                call()
    for wrong in (None, 3, b"x", ["x"]):
        for load in (ns.load, load_source):
            with pytest.raises(UsageError, match="named by text or a path"):
                load(wrong)  # type: ignore[operator]
        with pytest.raises(UsageError, match="compress takes"):
            ns.compress(wrong, bits=3, out=tmp_path / "out")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"quantizer": None}, "quantizer must be"), ({"quantizer": 3}, "quantizer must be"),
        ({"calibration": [[1, 2]]}, "calibration must be"),
    ],
)  # fmt: skip
def test_packing(arguments: dict[str, Any], words: str, llama: Any, played: ns.BitGame) -> None:
    with pytest.raises(UsageError, match=words):
        ns.pack(llama, allocate(played), quiet=True, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"effort": None}, {"effort": 3}, {"effort": "huge"}, {"eval_windows": -1},
        {"eval_windows": "all"}, {"windows": 0}, {"windows": "all"}, {"group_size": 0}, {"quantizer": 3},
        {"max_memory": "much"}, {"max_memory": True},
    ],
)  # fmt: skip
def test_compressing(arguments: dict[str, Any], llama: Any, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=next(iter(arguments)).removeprefix("max_memory") or "size"):
        ns.compress(str(tmp_path / "model"), bits=6, out=tmp_path / "out", text="./none.txt", **arguments)


def test_saving_and_evaluating(llama: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tokenizer must be"):
        ns.save(small, tmp_path / "out", tokenizer="gpt2")
    with pytest.raises(UsageError, match="not packed"):
        ns.save(llama, tmp_path / "out")
    for models in ([llama], {}, llama, None):
        with pytest.raises(UsageError, match="table of models by name"):
            ns.evaluate(models, IDS, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="loaded transformers model"):
        ns.evaluate({"a": llama}, IDS, reference="path", quiet=True)
    for wrong in (None, 3, ["a"]):
        with pytest.raises(UsageError, match="prompt must be text"):
            continue_text(llama, ByteTokenizer(), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"keep": {"lm_head": "8"}}, "keep lm_head"), ({"keep": ["lm_head=8"]}, "keep must map"),
        ({"keep": {3: 8}}, "keep must map"), ({"keep": {"a": True}}, "keep a"), ({"forbid": {"a": 3}}, "forbid a"),
        ({"forbid": {"a": "3"}}, "forbid a"), ({"forbid": "a=3"}, "forbid must map"), ({"fuse": "a,b"}, "fuse"),
        ({"fuse": ("a", "b")}, "fuse"), ({"fuse": ((1, 2),)}, "fuse"), ({"fuse": 3}, "fuse"),
    ],
)  # fmt: skip
def test_rules_of_other_types(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ns.Rules(**fields)


def test_rules_take_lists_too() -> None:
    rules = ns.Rules(forbid={"a": [2, 3]}, fuse=[["a", "b"]])  # type: ignore[dict-item, arg-type]
    assert str(rules) == "forbid a=2,3; fuse a,b"
