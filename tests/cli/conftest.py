"""A tiny random Llama with a tokenizer of its own on disk, and the command line run in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


@dataclass(frozen=True)
class Outcome:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def values(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        values = json.loads(self.out)
        assert isinstance(values, dict)
        return values


Command = Callable[..., Outcome]


def _run(*arguments: object) -> Outcome:
    from nash_swarm.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["nash-swarm", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Command:
    """`nash-swarm` with these arguments."""
    return _run


@dataclass(frozen=True)
class Bench:
    """A model directory and a calibration text."""

    model: Path
    text: Path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from pydoc_data import topics

    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("bench")
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:20_000]
    (folder / "text.txt").write_text(text, encoding="utf-8")
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=["<unk>", "<eos>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="<unk>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    logging.disable_progress_bar()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    logging.enable_progress_bar()
    return Bench(folder / "model", folder / "text.txt")


@dataclass(frozen=True)
class Stages:
    """What the stages of one run wrote, and what they said."""

    game: Path
    allocation: Path
    packed: Path
    measured: dict[str, Any]
    solved: dict[str, Any]
    saved: dict[str, Any]


@pytest.fixture(scope="session")
def stages(bench: Bench, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """measure -> solve -> pack, through files."""
    folder = tmp_path_factory.mktemp("stages")
    game, allocation, packed = folder / "game.npz", folder / "allocation.json", folder / "packed"
    return Stages(
        game, allocation, packed,
        command("measure", bench.model, "-o", game, "--text", bench.text, "--windows", 2, "--json", "-q").values,
        command("solve", game, "--bits", 5, "-o", allocation, "--json").values,
        command("pack", bench.model, allocation, "-o", packed, "--json", "-q").values,
    )  # fmt: skip


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[None]:
    """Holds that the test leaves no file in `tmp_path` that it did not make before `unchanged` was asked for."""
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before
