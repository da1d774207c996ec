from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import ByteTokenizer, logits, tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.calibration.text import Text, choose_windows, cut_windows, load_text
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.measures import Evaluation

Ids = npt.NDArray[np.int32]


def test_loss_is_what_transformers_says(model: Any, tokens: Ids) -> None:
    ids = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        expected = float(model(ids, labels=ids).loss)
    found = ns.evaluate({"m": model}, tokens, quiet=True)["m"]
    assert found.tokens == tokens.shape[0] * (tokens.shape[1] - 1)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.perplexity == pytest.approx(np.exp(expected), rel=1e-4)
    assert found.kl is None and found.top1 is None


def test_divergence_and_agreement_by_hand(model: Any, packed: Any, tokens: Ids) -> None:
    p, q = (torch.softmax(logits(m, tokens)[:, :-1].double(), -1) for m in (model, packed))
    found = ns.evaluate({"packed": packed, "self": model}, tokens, reference=model, quiet=True)
    assert found["packed"].kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)
    assert found["packed"].top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert found["self"].kl == 0 and found["self"].top1 == 1
    alone = ns.evaluate({"self": model}, tokens, quiet=True)
    assert found["self"].loss == alone["self"].loss


def test_evaluation_switches_dropout_off_and_on_again(tokens: Ids) -> None:
    model = tiny_gpt2()
    expected = ns.evaluate({"m": model}, tokens, quiet=True)
    model.train()
    assert ns.evaluate({"m": model}, tokens, reference=model, quiet=True)["m"].loss == expected["m"].loss
    assert all(module.training for module in model.modules())


def test_windows_that_predict_nothing_are_refused() -> None:
    for shape in ((0, 8), (3, 1), (8,)):
        with pytest.raises(DataError, match="evaluation tokens"):
            ns.evaluate({"m": tiny_llama(tied=True)}, np.zeros(shape, np.int32), quiet=True)


def test_hopeless_losses_have_a_perplexity() -> None:
    assert np.isfinite(Evaluation(1, 1e9).perplexity)


class Counter:
    """Every token is its own number, so that windows can be told apart."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text)))}


@given(st.integers(128, 5000), st.integers(16, 600))
def test_windows_cover_the_text_once(tokens: int, length: int) -> None:
    text = Text("x" * tokens, "x")
    parts = {
        part: cut_windows(text, Counter(), length=length, part=part) for part in ("all", "calibration", "held-out")
    }
    everything = parts["all"]
    np.testing.assert_array_equal(everything.ravel(), np.arange(everything.size))
    assert everything.dtype == np.int32
    width = everything.shape[1]
    assert width == min(length, tokens // 8) and tokens - width < everything.size <= tokens
    held, seen = set(parts["held-out"].ravel().tolist()), set(parts["calibration"].ravel().tolist())
    assert not held & seen and held | seen == set(everything.ravel().tolist())
    assert len(parts["held-out"]) == len(everything) // 4 >= 2


def test_texts_that_cannot_be_cut() -> None:
    with pytest.raises(DataError, match="127 tokens; at least 128"):
        cut_windows(Text("x" * 127, "x"), Counter())
    with pytest.raises(UsageError, match="at least 16"):
        cut_windows(Text("x" * 1000, "x"), Counter(), length=15)
    with pytest.raises(UsageError, match="no tokenizer"):
        cut_windows(Text("x" * 1000, "x"), None)


def test_choosing_windows_depends_on_the_seed_alone() -> None:
    windows = np.arange(100, dtype=np.int32).reshape(50, 2)

    def chosen(seed: int) -> list[int]:
        return [int(row) for row in choose_windows(windows, 7, np.random.default_rng(seed))[:, 0]]

    assert chosen(0) == chosen(0) != chosen(1)
    assert len(set(chosen(0))) == 7 and chosen(0) == sorted(chosen(0))
    np.testing.assert_array_equal(choose_windows(windows, 50, np.random.default_rng(0)), windows)
    np.testing.assert_array_equal(choose_windows(windows, 99, np.random.default_rng(0)), windows)
    with pytest.raises(UsageError, match="positive"):
        choose_windows(windows, 0, np.random.default_rng(0))


def test_texts_from_files(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("Grüße", encoding="utf-8")
    text = load_text(str(path))
    assert text.content == "Grüße" and text.source == "text"
    assert text.digest != Text("Grüsse", "").digest == Text("Grüsse", "other").digest


def test_the_built_in_text_is_long_enough_and_says_nothing_twice() -> None:
    content = load_text("python-docs").content
    assert len(content) > 300_000
    paragraphs = [" ".join(part.split()) for part in content.split("\n\n")]
    assert all(paragraphs) and len(set(paragraphs)) == len(paragraphs)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b" \n\t", "empty"), (b"\xff\xfe\xfa", "UTF-8"), (None, "no text file")]
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_text(str(path))


def test_texts_from_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> list[dict[str, str]]:
        assert streaming
        asked.append((name, config, split))
        if name == "missing":
            raise FileNotFoundError("not on the hub\nlong traceback")
        return [{"text": "a", "line": "c"}, {"text": "", "line": "d"}, {"text": "b", "line": "e"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert load_text("some/set").content == "a\n\nb"
    assert load_text("some/set:small:train:line").content == "c\nd\ne"
    assert asked == [("some/set", None, "test"), ("some/set", "small", "train")]
    with pytest.raises(DataError, match="no column 'words'; it has text, line"):
        load_text("some/set:::words")
    with pytest.raises(DataError, match=r"no text file and no data set 'missing'.*not on the hub$"):
        load_text("missing")


def test_held_out_text_is_not_what_was_calibrated_on(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{i * i} {i} " for i in range(1000)))
    game = ns.measure(
        tiny_llama(tied=True),
        ByteTokenizer(),
        text=str(path),
        length=64,
        windows=10**6,
        damage="activation",
        quiet=True,
    )
    text = load_text(str(path))
    held_out, everything = (
        cut_windows(text, ByteTokenizer(), length=64, part=part).tolist() for part in ("held-out", "all")
    )
    assert game.calibration is not None
    seen = game.calibration.tokens.tolist()
    assert len(seen) + len(held_out) == len(everything) and not [window for window in held_out if window in seen]
