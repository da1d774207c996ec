"""Generation: sampling, stop strings, streaming and chat templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.bench import Bench
from transformers import AutoModelForCausalLM, AutoTokenizer

from nash_swarm.errors import UsageError
from nash_swarm.evaluation.continuation import continue_text
from nash_swarm.evaluation.text_stream import TextStream, cut_at
from nash_swarm.sampling import Sampling

PROMPT = "The import statement"


@pytest.fixture(scope="module")
def loaded(bench: Bench) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(bench.model).eval(), AutoTokenizer.from_pretrained(bench.model)


@pytest.fixture
def steps(loaded: tuple[Any, Any]) -> Iterator[list[int]]:
    """A list that gets one entry for every forward pass."""
    counted: list[int] = []
    handle = loaded[0].register_forward_hook(lambda *_: counted.append(1))
    yield counted
    handle.remove()


def test_text_ends_before_a_stop_string_and_so_does_the_work(loaded: tuple[Any, Any], steps: list[int]) -> None:
    whole = continue_text(*loaded, PROMPT, tokens=20)
    assert len(steps) == 20 and len(whole) > 12
    for size in (1, 3, 6):
        stop = whole[4 : 4 + size]
        steps.clear()
        assert continue_text(*loaded, PROMPT, tokens=20, stop=["\x00", stop]) == whole[: whole.find(stop)]
        assert len(steps) < 20
    steps.clear()
    assert continue_text(*loaded, PROMPT, tokens=20, stop=["\x00"]) == whole
    assert len(steps) == 20


@pytest.mark.parametrize("stop", [(), ("\x00",), (" ",), ("e", "the")])
def test_the_pieces_are_the_text(loaded: tuple[Any, Any], stop: tuple[str, ...]) -> None:
    pieces: list[str] = []
    options: dict[str, Any] = {"tokens": 30, "stop": stop, "sample": True, "seed": 5}
    text = continue_text(*loaded, PROMPT, write=pieces.append, **options)
    assert "".join(pieces) == text == continue_text(*loaded, PROMPT, **options)
    assert all(pieces)
    if not stop:
        assert len(pieces) > 5


def test_one_token_to_choose_from_is_the_likeliest(loaded: tuple[Any, Any]) -> None:
    likeliest = continue_text(*loaded, PROMPT, tokens=12)
    for sampling in (
        Sampling(temperature=0), Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4),
    ):  # fmt: skip
        assert continue_text(*loaded, PROMPT, tokens=12, sampling=sampling, seed=9) == likeliest


def test_what_is_not_said_is_as_the_model_says(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    sampled = continue_text(model, tokenizer, PROMPT, tokens=12, sample=True, seed=1)
    assert sampled == continue_text(model, tokenizer, PROMPT, tokens=12, sampling=Sampling(), seed=1)
    assert sampled != continue_text(model, tokenizer, PROMPT, tokens=12)
    before = model.generation_config.top_k
    try:
        model.generation_config.top_k = 1
        greedy = continue_text(model, tokenizer, PROMPT, tokens=12, sampling=Sampling(temperature=1.0), seed=1)
        assert greedy == continue_text(model, tokenizer, PROMPT, tokens=12)
        free = continue_text(model, tokenizer, PROMPT, tokens=12, sampling=Sampling(top_k=0), seed=1)
        assert free != greedy
    finally:
        model.generation_config.top_k = before


def test_a_models_own_sampling_settings_are_no_noise_for_the_likeliest_token(
    loaded: tuple[Any, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = loaded
    settings = model.generation_config
    before = settings.temperature, settings.top_p, settings.do_sample
    likeliest = continue_text(model, tokenizer, PROMPT, tokens=6)
    try:
        settings.temperature, settings.top_p, settings.do_sample = 0.6, 0.9, True
        capfd.readouterr()
        assert continue_text(model, tokenizer, PROMPT, tokens=6) == likeliest
        assert capfd.readouterr() == ("", "")
    finally:
        settings.temperature, settings.top_p, settings.do_sample = before


@pytest.mark.parametrize(
    "values",
    [{"temperature": -0.1}, {"temperature": 1e9}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0},
     {"top_p": 1.01}, {"temperature": 0, "top_k": 4}, {"temperature": 0.0, "top_p": 0.5}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Sampling(**values)


PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN


def test_a_system_message_goes_through_the_template(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded
    with pytest.raises(UsageError, match="no chat template"):
        continue_text(model, tokenizer, "Hi", chat=True)
    monkeypatch.setattr(tokenizer, "chat_template", PLAIN)
    told = continue_text(model, tokenizer, "Hi", chat=True, system="Be brief.", tokens=8)
    assert told == continue_text(model, tokenizer, "[system]Be brief.[user]Hi", tokens=8)
    assert told != continue_text(model, tokenizer, "Hi", chat=True, tokens=8)
    with pytest.raises(UsageError, match="--chat"):
        continue_text(model, tokenizer, "Hi", system="Be brief.")
    monkeypatch.setattr(tokenizer, "chat_template", STRICT)
    assert continue_text(model, tokenizer, "Hi", chat=True, tokens=2)
    with pytest.raises(UsageError, match=r"no system here .*leave out --system"):
        continue_text(model, tokenizer, "Hi", chat=True, system="Be brief.")


@pytest.mark.parametrize("stop", ["text", [""], ["a", ""]])
def test_stops_are_a_list_of_strings(stop: Any, loaded: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match="stop"):
        continue_text(*loaded, PROMPT, stop=stop)


def test_the_first_stop_in_the_text_counts() -> None:
    assert cut_at("one two three", ("three", "two")) == "one "
    assert cut_at("one", ("two",)) == "one"
    assert cut_at("one", ()) == "one"


class Bytes:
    """One token per byte; 0 is a special token."""

    clean_up_tokenization_spaces = False

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(i for i in ids.tolist() if i).decode("utf-8", errors="replace")


class Tidy(Bytes):
    """Removes the space before a full stop."""

    clean_up_tokenization_spaces = True

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return super().decode(ids, skip_special_tokens).replace(" .", ".")


def _listen(tokenizer: Any, data: bytes, *stops: str) -> tuple[list[str], str, int]:
    """The written pieces, the returned text, and the number of tokens until the end."""
    pieces: list[str] = []
    listener = TextStream(tokenizer, 2, stops, pieces.append)
    ids = torch.tensor([[7, 7, *data]])
    for length in range(3, ids.shape[1] + 1):
        if bool(listener(ids[:, :length], None)):
            return pieces, listener.finish(ids[0, :length]), length - 2
    return pieces, listener.finish(ids[0]), len(data)


def test_half_a_character_is_not_passed_on() -> None:
    pieces, text, _ = _listen(Bytes(), "aä\U0001f600z".encode())
    assert pieces == ["a", "ä", "\U0001f600", "z"] and text == "aä\U0001f600z"


def test_what_may_become_a_stop_string_is_kept_until_it_cannot() -> None:
    pieces, text, read = _listen(Bytes(), b"ab<e>x<end>more", "<end>")
    assert pieces == ["a", "b", "<e>", "x"] and text == "ab<e>x" and read == len("ab<e>x<end>")
    # at the end of the text it is passed on after all
    pieces, text, _ = _listen(Bytes(), b"ab<en", "<end>")
    assert pieces == ["a", "b", "<en"] and text == "ab<en"


def test_words_whose_spaces_are_cleaned_up_are_passed_on_whole() -> None:
    pieces, text, _ = _listen(Tidy(), b"one two . three .")
    assert "".join(pieces) == text == "one two. three." and len(pieces) > 1
