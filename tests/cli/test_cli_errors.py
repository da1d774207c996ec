"""What a user sees when something is wrong: one line, an exit code, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("unchanged")

_MISSING = "./no-such-model"


def _fails(told: Any, code: int, *words: str) -> None:
    lines = told.err.strip().splitlines()
    assert told.code == code, told.err
    assert len(lines) == 1, told.err
    assert lines[0].startswith("nash-swarm: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert told.out == ""


# The model does not exist in any of these: that they end with 2 and not 1 shows that nothing was loaded before.
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--solver", "nope"], ["solver", "'nope'", "lagrangian"]),
        (["--quantizer", "nope"], ["quantizer", "'nope'", "gptq"]),
        (["--damage", "nope"], ["damage", "'nope'", "fisher"]),
        (["--granularity", "nope"], ["--granularity", "'nope'", "tile"]),
        (["--scope", "nope"], ["--scope", "'nope'", "linear"]),
        (["--strategies", "2,7"], ["strategies", "[7]"]),
        (["--strategies", "two"], ["strategies", "'two'"]),
        (["--strategies", "2,16", "--granularity", "parameter"], ["strategies", "[16]"]),
        (["--size", "60MB"], ["once", "--size"]),
    ],
)
def test_compress_refuses_wrong_options_before_it_loads_a_model(
    options: list[str], words: list[str], command: Any, tmp_path: Path
) -> None:
    _fails(command("compress", _MISSING, "--bits", 3, *options, "-o", tmp_path / "out"), 2, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["once"]),
        (["--size", "60 apples"], ["'60 apples'"]),
        (["--bits", "-1"], ["-1"]),
        (["--bits", "nan"], ["nan"]),
    ],
)
def test_a_budget_that_is_none(options: list[str], words: list[str], stages: Any, command: Any, tmp_path: Path) -> None:
    _fails(command("compress", _MISSING, *options, "-o", tmp_path / "out"), 2, *words)
    _fails(command("solve", stages.game, *options, "-o", tmp_path / "a.json"), 2, *words)


@pytest.mark.parametrize(
    "options",
    [["--damage", "nope"], ["--granularity", "nope"], ["--scope", "nope"], ["--strategies", "7"]],
)
def test_measure_refuses_wrong_options_before_it_loads_a_model(
    options: list[str], command: Any, tmp_path: Path
) -> None:
    _fails(command("measure", _MISSING, *options, "-o", tmp_path / "game.npz"), 2, options[0].removeprefix("--"))


def test_unknown_names_in_the_other_stages(stages: Any, command: Any, tmp_path: Path) -> None:
    told = command("solve", _MISSING, "--bits", 3, "--solver", "nope", "-o", tmp_path / "a.json")
    _fails(told, 2, "'nope'")
    told = command("pack", _MISSING, stages.allocation, "--quantizer", "nope", "-o", tmp_path / "out")
    _fails(told, 2, "'nope'")
    _fails(command("demo", "--solver", "nope", "-o", tmp_path / "out"), 2, "'nope'")


@pytest.mark.parametrize("name", ["compress", "demo"])
def test_a_budget_that_cannot_be_met_is_refused_before_anything_is_measured(
    name: str, bench: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nash_swarm.models import source
    from nash_swarm.pipeline import job, measuring

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("measured although the budget cannot be met")

    loaded = source.load_source(str(bench.model))
    game = measuring.measure(
        loaded.model,
        loaded.tokenizer,
        text=str(bench.text),
        windows=1,
        quiet=True,
    )
    smallest = game.smallest_bits() / game.parameters
    monkeypatch.setattr(measuring, "measure", fail)
    monkeypatch.setattr(job, "measure", fail)
    monkeypatch.setattr(source, "load_source", lambda name: loaded)
    model = [bench.model] if name == "compress" else []
    told = command(name, *model, "--bits", 1.2, "-o", tmp_path / "out")
    _fails(told, 2, "1.2 bits/param", "smallest feasible", f"{smallest:.3f}"[:-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", 3.5, "--keep", "lm_head=8"], ["smallest feasible", "keep lm_head=8"]),
        (["--bits", 6, "--keep", "no_such_layer=8"], ["'no_such_layer'"]),
        (["--bits", 6, "--keep", "lm_head=7"], ["lm_head=7"]),
        (["--bits", 6, "--fuse", "up_proj,down_proj"], ["cannot fuse", "columns"]),
        (["--bits", 6, "--forbid", "down_proj=2,3,4,5,6,8"], ["no width"]),
        (["--bits", 6, "--keep", "lm_head"], ["'lm_head'"]),
    ],
)
def test_rules_that_cannot_hold_are_refused_before_anything_is_measured(
    options: list[Any], words: list[str], bench: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nash_swarm.pipeline import job

    monkeypatch.delattr(job, "measure")
    told = command("compress", bench.model, *options, "--granularity", "tile", "-o", tmp_path / "out")
    _fails(told, 2, *words)


def test_the_smallest_feasible_budget_is_feasible(stages: Any, command: Any, tmp_path: Path) -> None:
    refused = command("solve", stages.game, "--bits", 1.2, "-o", tmp_path / "a.json")
    _fails(refused, 2, "smallest feasible")
    smallest = refused.err.split(" = ")[1].split()[0]
    told = command("solve", stages.game, "--bits", smallest, "-o", tmp_path / "a.json", "--json")
    assert told.values["certificate"]["used_bits"] <= told.values["certificate"]["budget_bits"]
    (tmp_path / "a.json").unlink()


@pytest.mark.parametrize("name", ["compress", "measure", "eval"])
def test_a_wrong_model_path(name: str, command: Any, tmp_path: Path) -> None:
    options = {"compress": ["--bits", 3, "-o", tmp_path / "out"], "measure": ["-o", tmp_path / "g.npz"], "eval": []}
    _fails(command(name, _MISSING, *options[name]), 1, "no-such-model")
    _fails(command(name, tmp_path / "nothing.gguf", *options[name]), 1, "nothing.gguf")


@pytest.mark.parametrize("name", ["generate", "inspect", "eval"])
def test_a_folder_that_is_no_packed_model(name: str, command: Any, tmp_path: Path) -> None:
    prompt = ["hello"] if name == "generate" else []
    _fails(command(name, tmp_path, *prompt), 1, "config.json")


@pytest.mark.parametrize(("content", "words"), [("", ["empty"]), (" \n", ["empty"]), ("few words", ["tokens"])])
def test_a_text_that_holds_nothing(
    content: str, words: list[str], bench: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(content, encoding="utf-8")
    for name, out in (("compress", "out"), ("measure", "g.npz")):
        budget = ["--bits", 6] if name == "compress" else []
        _fails(command(name, bench.model, *budget, "--text", text, "-o", tmp_path / out, "-q"), 1, *words)


def test_a_text_that_is_not_there_or_not_text(
    bench: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    noise = tmp_path_factory.mktemp("text") / "noise.txt"
    noise.write_bytes(b"\xff\xfe\x00\xff")
    for text, word in (("./no-such.txt", "no-such.txt"), (noise, "UTF-8")):
        told = command("compress", bench.model, "--bits", 6, "--text", text, "-o", tmp_path / "out")
        _fails(told, 1, word)


def _copy(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("copy") / folder.name))


def test_a_truncated_model(bench: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    model = _copy(bench.model, tmp_path_factory)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    _fails(command("compress", model, "--bits", 6, "-o", tmp_path / "out", "-q"), 1, str(model))


@pytest.mark.parametrize("damage", ["cut short", "changed byte", "missing", "no header", "config"])
def test_a_damaged_packed_model(
    damage: str, stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = _copy(stages.packed, tmp_path_factory)
    weights = packed / "model.safetensors"
    data = bytearray(weights.read_bytes())
    match damage:
        case "cut short":
            weights.write_bytes(data[:-1])
        case "changed byte":
            data[-100] ^= 1
            weights.write_bytes(data)
        case "missing":
            weights.unlink()
        case "no header":
            weights.write_bytes(b"\xff" * 64)
        case _:
            (packed / "config.json").write_text("{", encoding="utf-8")
    _fails(command("generate", packed, "hello"), 1)
    _fails(command("eval", packed), 1)
    if damage != "changed byte":  # inspect reads widths, not checksums
        _fails(command("inspect", packed), 1)


def test_every_byte_of_a_packed_tensor_is_checked(
    stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = _copy(stages.packed, tmp_path_factory)
    weights = packed / "model.safetensors"
    data = weights.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for place in (start, (start + len(data)) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 0x10
        weights.write_bytes(changed)
        _fails(command("generate", packed, "hello"), 1, "checksum")


def test_an_output_folder_that_is_not_empty(
    bench: Any, stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    full = tmp_path_factory.mktemp("full")
    (full / "precious.txt").write_text("keep me", encoding="utf-8")
    _fails(command("compress", _MISSING, "--bits", 6, "-o", full), 2, "not empty", "--overwrite")
    _fails(command("pack", _MISSING, stages.allocation, "-o", full), 2, "not empty")
    _fails(command("demo", "-o", full), 2, "not empty")
    _fails(command("compress", _MISSING, "--bits", 6, "-o", full / "precious.txt"), 2, "is a file")
    assert [path.name for path in full.iterdir()] == ["precious.txt"]


def test_an_output_whose_parent_is_missing(stages: Any, command: Any, tmp_path: Path) -> None:
    nowhere = tmp_path / "no-such-folder" / "out"
    _fails(command("compress", _MISSING, "--bits", 6, "-o", nowhere), 1, "no-such-folder")
    _fails(command("measure", _MISSING, "-o", nowhere), 1, "no-such-folder")
    _fails(command("solve", stages.game, "--bits", 6, "-o", nowhere), 1, "no-such-folder")
    _fails(command("measure", _MISSING, "-o", tmp_path), 2, "is a folder")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_game_file_that_is_cut_short(
    keep: float, stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    game = tmp_path_factory.mktemp("game") / "game.npz"
    data = stages.game.read_bytes()
    game.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    _fails(command("solve", game, "--bits", 6, "-o", tmp_path / "a.json"), 1, str(game))


def test_a_game_file_with_changed_bytes(
    stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    game = tmp_path_factory.mktemp("game") / "game.npz"
    data = bytearray(stages.game.read_bytes())
    for place in range(len(data) // 4, len(data) // 4 + 40):
        data[place] ^= 0x55
    game.write_bytes(data)
    _fails(command("solve", game, "--bits", 6, "-o", tmp_path / "a.json"), 1, str(game))
    _fails(command("solve", game.parent / "none.npz", "--bits", 6, "-o", tmp_path / "a.json"), 1, "none.npz")


def _rename(values: dict[str, Any]) -> None:
    """Make an allocation's values those of another model."""
    tensor = values["tensors"][0]
    values["permutations"]["model.other"] = values["permutations"].pop(tensor["name"])
    tensor["name"] = "model.other"


@pytest.mark.parametrize("damage", ["cut short", "no json", "field", "choices", "another model", "not there"])
def test_a_damaged_allocation_file(
    damage: str, bench: Any, stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    path = tmp_path_factory.mktemp("allocation") / "allocation.json"
    text = stages.allocation.read_text(encoding="utf-8")
    values = json.loads(text)
    match damage:
        case "cut short":
            path.write_text(text[: len(text) // 2], encoding="utf-8")
        case "no json":
            path.write_bytes(b"\xff\xfe")
        case "field":
            del values["certificate"]
            path.write_text(json.dumps(values), encoding="utf-8")
        case "choices":
            values["choices"] = values["choices"][::-1]
            path.write_text(json.dumps(values), encoding="utf-8")
        case "another model":
            _rename(values)
            path.write_text(json.dumps(values), encoding="utf-8")
    _fails(command("pack", bench.model, path, "-o", tmp_path / "out", "-q"), 1)


@pytest.mark.parametrize("field", ["used_bits", "unilateral_regret", "lower_bound", "predicted_damage", "game"])
def test_a_certificate_that_was_tampered_with(
    field: str, stages: Any, command: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("allocation") / "allocation.json"
    values = json.loads(stages.allocation.read_text(encoding="utf-8"))
    if field == "game":
        _rename(values)
    else:
        values["certificate"][field] = values["certificate"][field] * 2 + 1
    path.write_text(json.dumps(values), encoding="utf-8")
    _fails(command("certify", stages.game, path), 1, field)


def test_an_interrupted_run_leaves_nothing(
    bench: Any, stages: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nash_swarm.artifacts import packed_model

    def interrupt(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    # the weights are already written when the card is
    monkeypatch.setattr(packed_model, "card_text", interrupt)
    told = command("pack", bench.model, stages.allocation, "-o", tmp_path / "out", "-q")
    assert (told.code, told.err) == (130, "nash-swarm: interrupted; no half-written output is left\n")


def test_an_interrupt_during_a_destructor_is_not_lost(
    bench: Any, stages: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nash_swarm.artifacts import packed_model

    class Dying:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def work(*_: Any, **__: Any) -> str:
        Dying()
        for _ in range(1000):
            time.sleep(0.01)
        return "not interrupted"

    hook = sys.unraisablehook
    monkeypatch.setattr(packed_model, "card_text", work)
    # shells start background jobs with the signal ignored, and the tests may be one
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        told = command("pack", bench.model, stages.allocation, "-o", tmp_path / "out", "-q")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (told.code, told.err) == (130, "nash-swarm: interrupted; no half-written output is left\n")
    assert not any(tmp_path.iterdir())
    assert sys.unraisablehook is hook
