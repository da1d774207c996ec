"""A tiny random Llama on disk, with a tokenizer trained on the text that lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging


@dataclass(frozen=True)
class Bench:
    """A model directory and a calibration text."""

    model: Path
    text: Path


def make_bench(folder: Path) -> Bench:
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:20_000]
    (folder / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = _train(text)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    logging.disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    logging.enable_progress_bar()
    return Bench(folder / "model", folder / "text.txt")


def _train(text: str) -> PreTrainedTokenizerFast:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="<unk>", eos_token="<eos>")
