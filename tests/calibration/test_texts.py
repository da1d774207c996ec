"""What a text can be given as, rows of JSON files, and dialogues through chat templates."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.bench import Bench
from support.models import ByteTokenizer, tiny_llama
from support.texts import Talker, Words, made

import nash_swarm as ns
from nash_swarm.calibration.documents import Message, read_dialogues
from nash_swarm.calibration.text import Text, choose_windows, cut_windows, load_text, sample_windows, shortage
from nash_swarm.errors import DataError, LeftOutWarning, TextWarning, UsageError

Ids = npt.NDArray[np.int32]
USER, ASSISTANT, SYSTEM = (
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "system", "content": "Be kind."},
)
TALK = "<user>Hello?</><assistant>Hi.</>"


def _digest(ids: Ids) -> str:
    return hashlib.blake2b(f"{ids.shape}".encode() + ids.tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("tokenizer", "part", "limited", "cut", "chosen"),
    [
        (ByteTokenizer(), "all", False, "60bf07c4dba17e58", "ad18a37649994d66"),
        (ByteTokenizer(), "all", True, "5b345ccd85b5832a", "87ef8a2e25e72c7b"),
        (ByteTokenizer(), "calibration", False, "849f7a07039188a4", "8afc92b27b4d0886"),
        (ByteTokenizer(), "calibration", True, "73de32b65d0c3750", "56f5c9b31e0183f2"),
        (ByteTokenizer(), "held-out", False, "14f3c3186c0bcc1c", "6e9742269961e549"),
        (ByteTokenizer(), "held-out", True, "954b685c890a370a", "cb9ace169040e7dd"),
        (Words(), "all", False, "422c6a407b856230", "f9a66302bb3e75a6"),
        (Words(), "calibration", False, "eba58957df5f7fcd", "bfc3b7a0f618b204"),
        (Words(), "calibration", True, "47b07bfce81eb259", "1372744cb205690c"),
        (Words(), "held-out", False, "afa70574ee2db669", "afa70574ee2db669"),
    ],
)
def test_windows_are_those_of_version_0_1(tokenizer: Any, part: Any, limited: bool, cut: str, chosen: str) -> None:
    text = Text(made(300), "made")
    assert text.digest == "3fc2c1e1dfa35c47"
    how: dict[str, Any] = {"part": part, "model": tiny_llama(tied=True) if limited else None}
    assert _digest(cut_windows(text, tokenizer, **how)) == cut
    assert _digest(sample_windows(text, tokenizer, np.random.default_rng(3), count=16, **how)) == chosen


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), Words()])
def test_windows_of_the_built_in_text_are_those_of_version_0_1(tokenizer: Any) -> None:
    text = load_text("python-docs")
    # the text differs from one version of Python to the next: what version 0.1 did with it is spelled out
    ids = np.array(tokenizer(text.content)["input_ids"], np.int32)
    windows = ids[: len(ids) // 512 * 512].reshape(-1, 512)
    held_out = np.arange(len(windows)) % 4 == 3
    for part, kept in (("all", held_out | True), ("calibration", ~held_out), ("held-out", held_out)):
        expected = choose_windows(windows[kept], 16, np.random.default_rng(3))
        found = sample_windows(text, tokenizer, np.random.default_rng(3), count=16, part=part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected)
    if text.digest == "c6279e7ace14ac0f" and isinstance(tokenizer, Words):
        found = sample_windows(text, tokenizer, np.random.default_rng(3), count=16, part="calibration")
        assert _digest(found) == "1ab07b1adc8e1ebb"


def test_texts_are_given_in_many_ways(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\n\ntwo")
    given: list[Any] = [path, str(path), Text("one\n\ntwo", "text.txt"), ["one", "two"], ("one", " ", "two")]
    assert {load_text(text).content for text in given} == {"one\n\ntwo"}
    assert len({load_text(text).digest for text in given}) == 1
    assert load_text(["one", "two"]).source == "a list of 2 texts"
    assert ns.Text is Text


@pytest.mark.parametrize("text", ["a text\nof two lines", "word" * 2000, "a" * 300, "nul\0", "x/" + "y" * 256])
def test_a_text_itself_is_no_name(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"text is the name of a file or data set, not the text itself.*nash_swarm\.Text"
    ):
        load_text(text)
    with pytest.raises(UsageError, match="not the text itself"):
        ns.compress("nowhere", out="out", bits=3, text=text)


@pytest.mark.parametrize("text", [3, [], ["a", 3], b"bytes", None, {"text": "a"}])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match=r"text is a file, a data set, a list of strings or a nash_swarm\.Text, not"):
        load_text(text)


def test_names_that_are_no_data_sets_are_refused_at_once(tmp_path: Path) -> None:
    for name in (tmp_path / "missing", str(tmp_path / "missing"), "some words that are no name"):
        with pytest.raises(DataError, match="no text file at"):
            load_text(name)
    with pytest.raises(DataError, match="is empty"):
        load_text([" "])


def _file(folder: Path, rows: list[Any], kind: str = "jsonl") -> Path:
    path = folder / f"rows.{kind}"
    lines = [json.dumps(row) for row in rows]
    path.write_text("[" + ",\n".join(lines) + "]" if kind == "json" else "\n".join([*lines, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "JSONL"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "plain", "id": 3}, "plain"),
        ("plain", "plain"),
        ({"text": "half a pair: \ud83d"}, "half a pair: \ufffd"),
        ({"messages": [USER, ASSISTANT]}, TALK),
        ({"text": None, "messages": [USER, ASSISTANT]}, TALK),
        ({"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]}, TALK),
        ({"conversations": [USER, ASSISTANT]}, TALK),
        ({"messages": [{"role": "user", "content": [{"text": "Hello?"}, {"type": "image"}]}, ASSISTANT]}, TALK),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]},
         "<user>Hello?</><assistant></>"),
    ],
)  # fmt: skip
def test_rows_of_json_files(tmp_path: Path, kind: str, row: Any, expected: str) -> None:
    text = load_text(_file(tmp_path, [row, row], kind))
    between = "" if text.templated else "\n\n"
    assert text.render(0, Talker()) == expected + between + expected
    assert "{" not in text.content and "<" not in text.content


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, {"prompt": "b", "answer": "c"}],
         "rows.jsonl, line 2 has no field 'text or messages'; it has prompt, answer"),
        ([{}], "line 1 has no field 'text or messages'; it has none"),
        ([{"messages": [{"speaker": "a", "said": "b"}]}], "line 1 has a turn with the fields speaker, said"),
        ([{"messages": [{"role": "wizard", "content": "b"}]}], "line 1 has a turn of 'wizard'; known are system"),
        ([{"messages": ["a"]}], "line 1 has a turn that is a str"),
        ([{"messages": [{"role": "user", "content": 3}]}], "line 1 has a turn whose content is a int"),
        ([{"text": 3}], "line 1 is a int, neither text nor a dialogue"),
        ([{"text": " "}, {"messages": None}], "rows.jsonl is empty"),
    ],
)  # fmt: skip
def test_rows_of_other_shapes(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        load_text(_file(tmp_path, rows))
    assert message in str(error.value)


def test_files_that_are_no_json(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.json"):
        (tmp_path / name).write_text('{"text": "a"}\n{"text": \n')
        with pytest.raises(DataError, match=f"{name}, line 2 is no JSON"):
            load_text(tmp_path / name)
    (tmp_path / "rows.json").write_text('{\n"title": "a"\n}')
    with pytest.raises(DataError, match="it has title"):
        load_text(tmp_path / "rows.json")
    (tmp_path / "rows.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"rows\.json is no JSON"):
        load_text(tmp_path / "rows.json")
    # one dialogue, and JSON lines under another name
    (tmp_path / "rows.json").write_text(json.dumps([USER, ASSISTANT]))
    assert load_text(tmp_path / "rows.json").render(0, Talker()) == TALK
    (tmp_path / "rows.json").write_text('{"text": "a\u2028b"}\n{"text": "c"}\n')
    assert load_text(tmp_path / "rows.json").content == "a\u2028b\n\nc"


def test_dialogues_need_a_template(tmp_path: Path) -> None:
    text = load_text(_file(tmp_path, [{"messages": [USER, ASSISTANT]}] * 50))
    with pytest.raises(
        UsageError, match=r"rows\.jsonl holds dialogues, and this model's tokenizer has no chat template"
    ):
        cut_windows(text, ByteTokenizer())
    with pytest.raises(UsageError, match="leave out --chat-template"):
        cut_windows(load_text("python-docs", chat_template=True), ByteTokenizer())
    expected = np.array(Talker()(TALK * 50)["input_ids"], np.int32)
    found = cut_windows(text, Talker(), length=64)
    np.testing.assert_array_equal(found.ravel(), expected[: found.size])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([SYSTEM, USER, ASSISTANT], "<user>Be kind.\n\nHello?</><assistant>Hi.</>"),
        ([USER, USER, ASSISTANT], "<user>Hello?\n\nHello?</><assistant>Hi.</>"),
        ([ASSISTANT], "<user></><assistant>Hi.</>"),
    ],
)
def test_templates_that_know_two_speakers_in_turn(tmp_path: Path, messages: list[Any], expected: str) -> None:
    text = load_text(_file(tmp_path, [{"messages": messages}]))
    assert text.render(0, Talker(strict=True)) == expected


def test_a_dialogue_that_a_template_refuses_is_named(tmp_path: Path) -> None:
    text = load_text(_file(tmp_path, [{"messages": [USER, ASSISTANT]}, {"messages": [SYSTEM, USER]}]))
    with pytest.raises(
        DataError,
        match=r"refuses a dialogue of rows\.jsonl that begins with 'Be kind\.': Conversation roles must alternate$",
    ):
        text.render(0, Talker(strict=True))


def test_plain_dialogues() -> None:
    def spoken(text: str) -> list[list[tuple[str, str]]]:
        return [[(message.role, message.content) for message in dialogue] for dialogue in read_dialogues(text)]

    u, a, s = "user", "assistant", "system"
    assert spoken("one\n\ntwo\ntwo\n\nthree") == [[(u, "one"), (a, "two\ntwo")], [(u, "three")]]
    marked = "User: one\nmore\nAssistant: two\n\nstill two\nHUMAN: three"
    assert spoken(marked) == [[(u, "one\nmore"), (a, "two\n\nstill two"), (u, "three")]]
    assert spoken("System: be\nUser: one\nSystem: do\nUser: two") == [[(s, "be"), (u, "one")], [(s, "do"), (u, "two")]]
    assert spoken("User: one\n---\nintro\nAssistant: two\n---\n") == [[(u, "one")], [(u, "intro"), (a, "two")]]
    assert spoken("---\n") == []


def test_plain_text_through_the_template(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("User: Hello?\nAssistant: Hi.\n---\nUser: Hello?\nAssistant: Hi.")
    plain, talk = load_text(path), load_text(path, chat_template=True)
    assert talk.render(0, Talker()) == TALK * 2 and talk.source == "talk.txt (chat template)"
    assert talk.digest != plain.digest and talk.same_content(plain.digest) and plain.same_content(talk.digest)
    rows = load_text(_file(tmp_path, [{"text": "Hello?\n\nHi."}, {"messages": [USER, ASSISTANT]}]), chat_template=True)
    assert rows.render(0, Talker()) == TALK * 2
    assert load_text(rows, chat_template=True) == rows
    dialogues = load_text(_file(tmp_path, [{"messages": [USER, ASSISTANT]}]))
    assert load_text(dialogues, chat_template=True).source == "rows.jsonl"
    assert talk.pieces[0][0] == (Message("user", "Hello?"), Message("assistant", "Hi."))


def test_a_real_tokenizer_knows_the_template_s_special_tokens(bench: Bench, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bench.model)
    tokenizer.chat_template = "{% for m in messages %}<eos>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    text = load_text(_file(tmp_path, [{"messages": [USER, ASSISTANT]}] * 100))
    ids = cut_windows(text, tokenizer, length=64).ravel().tolist()
    assert tokenizer.decode(ids).startswith("<eos>user: Hello?\n<eos>assistant: Hi.\n<eos>user")
    assert ids[0] == tokenizer.eos_token_id


def test_what_windows_lack_is_told(tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    text = Text("x" * 400, "short")
    with pytest.warns(
        LeftOutWarning, match=r"^the text short is short: 6 windows of 50 tokens to calibrate on instead of 9 of 64$"
    ):
        game = ns.measure(model, ByteTokenizer(), text=text, windows=9, length=64, damage="activation", quiet=True)
    assert game.calibration is not None
    windows = game.calibration.tokens
    assert shortage(windows, text, count=6, length=50, part="calibration") == ()
    assert len(shortage(windows, text, count=7, length=50)) == len(shortage(windows, text, count=6, length=51)) == 1
    assert shortage(windows, text, tokens=512, length=512) == (
        "the text short is short: 6 windows of 50 tokens in it instead of 1 of 512",
    )
    long = Text("x" * 9000, "long")
    read = sample_windows(long, ByteTokenizer(), np.random.default_rng(0), count=4, model=model)
    assert shortage(read, long, count=4, model=model) == (
        "the model reads at most 64 tokens: windows have no more, instead of 512",
    )


def test_a_talker_on_the_built_in_text_is_a_hint() -> None:
    model = tiny_llama(tied=True)
    how: dict[str, Any] = {"windows": 1, "length": 64, "damage": "activation", "quiet": True}
    with pytest.warns(
        TextWarning, match=r"has a chat template and is calibrated on python-docs.*0\.082.*0\.175.*0\.65.*--text"
    ):
        ns.measure(model, Talker(), **how)


@pytest.mark.filterwarnings("error::nash_swarm.errors.TextWarning")
def test_no_hint_without_need() -> None:
    model = tiny_llama(tied=True)
    how: dict[str, Any] = {"windows": 1, "length": 64, "damage": "activation", "quiet": True}
    ns.measure(model, ByteTokenizer(), **how)
    ns.measure(model, Talker(), text=Text("x" * 9000, "mine"), **how)
    ns.measure(model, Talker(), chat_template=True, **how)
