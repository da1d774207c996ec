"""Short, large and spoken texts on the command line: what is said of them, and what the report keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.texts import made

from nash_swarm.calibration import reading

pytestmark = [
    pytest.mark.filterwarnings("always::nash_swarm.errors.LeftOutWarning"),
    pytest.mark.filterwarnings("always::nash_swarm.errors.TextWarning"),
]


@pytest.fixture(scope="module")
def talker(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("talker") / "model"
    shutil.copytree(bench.model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}<eos>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_short_text_is_told_once_and_kept_in_the_report(bench: Any, command: Any, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text(bench.text.read_text(encoding="utf-8")[:800], encoding="utf-8")
    out = tmp_path / "out"
    told = command(
        "compress", bench.model, "--bits", 6, "--text", text, "--windows", 32, "-o", out, "-q", "--no-contest"
    )
    assert told.code == 0
    lines = [line for line in told.err.splitlines() if "short.txt is short" in line]
    assert len(lines) == len(set(lines)) == 2
    assert all(line.startswith("nash-swarm: the text short.txt is short: ") for line in lines)
    assert "6 windows of 44 tokens to calibrate on instead of 32 of 512" in lines[0]
    report = json.loads((out / "nash_swarm.json").read_text())
    assert [f"nash-swarm: {line}" for line in report["left_out"]] == lines
    assert "6 windows of 44 tokens to calibrate on instead of 32 of 512" in (out / "README.md").read_text()
    assert "86 held-out tokens of short.txt only: too few to judge" in (out / "README.md").read_text()
    assert "86 tokens of short.txt only: too few to" in told.out.replace("│", "")
    seen = command("inspect", out)
    assert "left out" in seen.out
    found = command("eval", out, "--reference", bench.model, "--text", text, "--json", "-q").values
    assert found["part"] == "held-out" and found["packed"]["too_few_tokens"] is True


def test_every_divergence_has_its_tokens_and_text(bench: Any, command: Any, tmp_path: Path) -> None:
    how = ("compress", bench.model, "--bits", 6, "--text", bench.text, "--windows", 2, "-o", tmp_path / "out", "-q",
           "--eval-windows", 4)  # fmt: skip
    told = command(*how)
    words = " ".join(told.out.replace("│", " ").split())
    assert words.count("tokens of text.txt") >= 5  # measured on, KL, and three on trial
    values = command(*how, "--overwrite", "--json").values
    assert values["trial_tokens"] == 8 * 511 and values["tuning_tokens"] == 0 and values["left_out"] == []
    assert "left_out" not in json.loads((tmp_path / "out" / "nash_swarm.json").read_text())


def test_eval_finds_what_was_held_out_of_a_large_text(
    bench: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(reading, "PIECE_BYTES", 8_000)
    monkeypatch.setattr(reading, "PIECES", 16)
    text, out = tmp_path / "large.txt", tmp_path / "out"
    text.write_text(made(800))
    made_of = command("compress", bench.model, "--bits", 6, "--text", text, "--windows", 2, "--eval-windows", 4, "-o",
                      out, "-q", "--json").values  # fmt: skip
    assert made_of["left_out"][0].startswith("the text large.txt has 0.4 MB; 0.1 MB of it, evenly spaced, are used")
    found = command("eval", out, "--reference", bench.model, "--text", text, "--tokens", 4 * 512, "--json", "-q").values
    assert found["part"] == "held-out"
    assert found["packed"]["kl"] == pytest.approx(made_of["packed"]["kl"], rel=1e-3)


def test_the_hint_comes_once_on_stderr(talker: Path, command: Any, tmp_path: Path) -> None:
    how = ("compress", talker, "--bits", 6, "--windows", 2, "--eval-windows", 2, "--no-contest", "-q", "-o")
    told = command(*how, tmp_path / "plain")
    assert told.code == 0 and told.err.count("has a chat template") == 1
    talked = command(*how, tmp_path / "talk", "--chat-template", "--json")
    assert "has a chat template" not in talked.err
    report = json.loads((tmp_path / "talk" / "nash_swarm.json").read_text())
    assert report["game"]["text"] == report["measured"]["text"] == "python-docs (chat template)"
    seen = command(
        "eval", tmp_path / "talk", "--reference", talker, "--chat-template", "--tokens", 1024, "--json", "-q"
    )
    assert seen.values["part"] == "held-out" and seen.values["chat_template"] and "calibrated on" not in seen.err
    other = command("eval", tmp_path / "talk", "--reference", talker, "--tokens", 1024, "--json", "-q")
    assert "was calibrated on this text with --chat-template" in other.err and other.values["part"] == "held-out"


def test_messages_are_calibrated_on_as_they_are_spoken(talker: Path, bench: Any, command: Any, tmp_path: Path) -> None:
    rows = tmp_path / "talks.jsonl"
    talk = {"messages": [{"role": "user", "content": "What is it? " * 9}, {"role": "assistant", "content": "It. " * 9}]}
    rows.write_text("\n".join([json.dumps(talk)] * 200))
    game = tmp_path / "game.npz"
    assert command("measure", talker, "--text", rows, "--windows", 2, "-o", game, "--json", "-q").code == 0
    refused = command("measure", bench.model, "--text", rows, "-o", tmp_path / "other.npz", "-q")
    assert refused.code == 2 and "no chat template" in refused.err and refused.err.count("\n") == 1
    rows.write_text('{"prompt": "a", "reply": "b"}')
    refused = command("measure", talker, "--text", rows, "-o", tmp_path / "other.npz", "-q")
    assert refused.code == 1 and "it has prompt, reply" in refused.err and refused.err.count("\n") == 1


def test_a_raw_text_is_one_line_and_not_a_traceback(bench: Any, command: Any, tmp_path: Path) -> None:
    refused = command("measure", bench.model, "--text", "words " * 1000, "-o", tmp_path / "game.npz")
    assert refused.code == 2 and refused.err.count("\n") == 1 and "not the text itself" in refused.err
