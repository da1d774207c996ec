"""Large texts: read and tokenized in proportion to what is used, and cut alike for every command, seed and number."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import ByteTokenizer, tiny_llama
from support.texts import Numbered, Spy, numbers

import nash_swarm as ns
from nash_swarm.calibration import reading
from nash_swarm.calibration.text import Part, Text, choose_windows, cut_windows, load_text, sample_windows
from nash_swarm.errors import DataError, LeftOutWarning

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 50 MB."""
    path = tmp_path_factory.mktemp("large") / "large.txt"
    paragraph = numbers(20_000)
    path.write_text("".join(f"{paragraph}\n\n" for _ in range(50 * MEGABYTE // len(paragraph) + 1)), encoding="utf-8")
    assert path.stat().st_size > 50 * MEGABYTE
    return path


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of more than 20 kB is large; 16 pieces of 1 kB are taken."""
    monkeypatch.setattr(reading, "WHOLE_BYTES", 20_000)
    monkeypatch.setattr(reading, "PIECE_BYTES", 1_000)
    monkeypatch.setattr(reading, "PIECES", 16)


def test_two_windows_of_a_large_text_take_two_windows_work(large: Path) -> None:
    spy = Spy(ByteTokenizer())
    with pytest.warns(LeftOutWarning, match=r"^the text large.txt has 50\.\d MB; 8\.0 MB of it, evenly"):
        game = ns.measure(tiny_llama(tied=True), spy, text=large, windows=2, length=64, damage="activation", quiet=True)
    assert game.calibration is not None and game.calibration.tokens.shape == (2, 64)
    assert 0 < spy.characters <= reading.PIECE_BYTES


def test_compress_tokenizes_in_proportion_to_its_windows(large: Path, tmp_path: Path) -> None:
    from nash_swarm.models.source import Source

    spy = Spy(ByteTokenizer())
    source = Source(tiny_llama(tied=True), spy, "tiny")
    done = ns.compress(source, out=tmp_path / "out", bits=7, text=large, windows=2, eval_windows=2, quiet=True)
    assert done.left_out[0].startswith("the text large.txt has 5")
    # measured on, tried on, held out: a few pieces each
    assert 0 < spy.characters <= 6 * reading.PIECE_BYTES


def test_only_pieces_of_a_large_text_are_in_memory(large: Path) -> None:
    tracemalloc.start()
    text = load_text(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(text.content) <= reading.PIECES * reading.PIECE_BYTES <= 8 * MEGABYTE
    assert peak < 50 * MEGABYTE
    starts = [int(piece[0].split()[0]) for piece in text.pieces if isinstance(piece[0], str)]
    assert len(starts) == reading.PIECES and len(set(starts)) > 100


def test_fifty_gigabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(b"words " * 20_000)
        # nothing but the beginning takes room on disk
        file.truncate(50_000 * MEGABYTE)
    text = load_text(str(path))
    assert text.left_out == ("the text huge.txt has 50,000.0 MB; 8.0 MB of it, evenly spaced, are used",)
    assert text.content.startswith("words words")


@given(
    kind=st.sampled_from(["plain", "jsonl", "json", "list", "text"]),
    length=st.integers(16, 60),
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seeds=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_held_out_is_never_calibrated_on(
    small_limits: None, tmp_path_factory: pytest.TempPathFactory, kind: str, length: int,
    counts: tuple[int, int], seeds: tuple[int, int],
) -> None:  # fmt: skip
    text = _large(kind, tmp_path_factory.getbasetemp())
    assert text.total and len(text.pieces) == 16

    def cut(part: Part) -> Any:
        return cut_windows(text, Numbered(), length=length, part=part)

    def sample(part: Part, count: int, seed: int) -> set[tuple[int, ...]]:
        found = sample_windows(text, Numbered(), np.random.default_rng(seed), count=count, length=length, part=part)
        assert len(found) == min(count, len(cut(part))) and sorted(found.tolist()) == found.tolist()
        return set(map(tuple, found.tolist()))

    everything = cut("all")
    # windows are stretches of the text, and no two share a token
    assert (np.diff(everything, axis=1) == 1).all() and len(np.unique(everything)) == everything.size
    parts = {part: set(map(tuple, cut(part).tolist())) for part in ("calibration", "held-out")}  # type: ignore[arg-type]
    assert parts["calibration"] | parts["held-out"] == set(map(tuple, everything.tolist()))
    assert min(map(len, parts.values())) > 0
    seen = [sample("calibration", count, seed) for count, seed in zip(counts, seeds, strict=True)]
    held = [sample("held-out", count, seed) for count, seed in zip(counts, reversed(seeds), strict=True)]
    # the cut depends on neither the number nor the seed
    assert all(found <= parts["calibration"] for found in seen) and all(found <= parts["held-out"] for found in held)
    # also where windows are of other lengths: pieces are held out as a whole
    other = cut_windows(text, Numbered(), length=length + 7, part="held-out")
    assert not {number for found in seen for window in found for number in window} & set(other.ravel().tolist())


_KEPT: dict[str, Text] = {}


def _large(kind: str, folder: Path) -> Text:
    if kind in _KEPT:
        return _KEPT[kind]
    content = numbers(12_000)
    paragraphs = content.split("\n\n")
    path = folder / f"numbers.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"text": part}) for part in paragraphs), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps([{"text": part} for part in paragraphs], indent=1), encoding="utf-8")
    else:
        path.write_text(content, encoding="utf-8")
    source: Any = {"list": paragraphs, "text": Text(content, "numbers")}.get(kind, path)
    _KEPT[kind] = load_text(source)
    return _KEPT[kind]


def test_more_windows_are_fewer_and_others(small_limits: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = _large("plain", tmp_path_factory.getbasetemp())

    def sample(count: int, **more: Any) -> set[tuple[int, ...]]:
        found = sample_windows(text, Numbered(), np.random.default_rng(0), count=count, length=32, **more)
        return set(map(tuple, found.tolist()))

    assert sample(3) < sample(9) < sample(20)
    apart = np.array(sorted(sample(9)), np.int32)
    assert not sample(9) & sample(9, apart_from=apart)
    assert sample_windows(text, Numbered(), np.random.default_rng(0), tokens=100, length=32).shape == (3, 32)
    with pytest.raises(DataError, match=r"too few pieces of the text numbers\.plain have 5000 tokens"):
        cut_windows(text, Numbered(), length=5000)
    with pytest.raises(DataError, match="too few pieces"):
        sample_windows(text, Numbered(), np.random.default_rng(0), count=2, length=5000)


@given(st.lists(st.text(st.sampled_from("aé→😀 \n\r"), min_size=1, max_size=40), min_size=1, max_size=8))
def test_pieces_are_whole_characters_of_the_text(
    small_limits: None, tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "characters.txt"
    content = ("x".join(parts) + "é") * 1500
    path.write_bytes(content.encode())
    read = path.read_text(encoding="utf-8")
    text = load_text(path)
    if not text.total:
        assert text.content == read
        return
    for piece in text.pieces:
        assert isinstance(piece[0], str) and piece[0] in read


def test_what_is_not_read_may_be_anything(small_limits: None, tmp_path: Path) -> None:
    content = bytearray(numbers(12_000).encode())
    between = len(content) * 3 // 32
    content[between : between + 2] = b"\xff\xff"
    path = tmp_path / "numbers.txt"
    path.write_bytes(content)
    assert load_text(path).total == len(content)
    content[10:12] = b"\xff\xff"
    path.write_bytes(content)
    with pytest.raises(DataError, match="UTF-8"):
        load_text(path)


def test_a_digest_is_of_the_pieces_and_the_size(small_limits: None, tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text(numbers(12_000))
    text = load_text(path)
    assert text.digest == load_text(path).digest == load_text(Text(numbers(12_000), "other")).digest
    assert text.digest != Text(text.content, "").digest


def test_rows_longer_than_a_piece(small_limits: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": numbers(4000)}) for _ in range(6)))
    text = load_text(path)
    assert text.total and len(text.pieces) == 6
    assert all(isinstance(piece[0], str) and 700 < len(piece[0]) <= 1_000 for piece in text.pieces)
    talk = [{"role": "user", "content": "a" * 600}, {"role": "assistant", "content": "b" * 600}]
    path.write_text("\n".join(json.dumps({"messages": talk}) for _ in range(40)))
    assert all(len(piece[0]) == 1 for piece in load_text(path).pieces)


class Stream:
    """Rows of a data set without an end; counts those that are taken."""

    def __init__(self, row: Callable[[int], dict[str, Any]]) -> None:
        self.row, self.taken = row, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self.row(self.taken)
            self.taken += 1


def test_a_data_set_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(lambda number: {"text": f"row {number} " * 1000})

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Stream:
        assert streaming
        return stream

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.warns(LeftOutWarning, match=r"^the data set some/set is long; its first [78]\.\d MB are used$"):
        text = load_text("some/set")
    assert stream.taken < 3000 and len(text.content) < 8.1 * MEGABYTE
    assert text.content.startswith("row 0 row 0")


def test_real_data_sets_are_streamed(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [{"text": f"row {number}"} for number in range(300)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        load_text(str(folder)).content
        == load_text(f"{folder}:::text").content
        == "\n".join(row["text"] for row in rows)
    )


def test_windows_of_ordinary_texts_are_chosen_as_ever(large: Path) -> None:
    content = large.read_text(encoding="utf-8")[: 15 * MEGABYTE]
    text = load_text(Text(content, "fifteen"))
    assert not text.total and text.content == content
    ids = np.array(Numbered()(content)["input_ids"], np.int32)
    windows = ids[: len(ids) // 512 * 512].reshape(-1, 512)
    kept = windows[np.arange(len(windows)) % 4 != 3]
    expected = choose_windows(kept, 16, np.random.default_rng(3))
    found = sample_windows(text, Numbered(), np.random.default_rng(3), count=16, part="calibration")
    np.testing.assert_array_equal(found, expected)
