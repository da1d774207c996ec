"""Folders of small tokenizers of several kinds, as models on the hub have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = "The quick brown fox jumps over the lazy dog. Häuser, naïve café; 12345 + 678 = 13023!\n\n日本語 x = f(x)\n" * 20
"""What they are trained on."""


def fast(folder: Path) -> None:
    """A tokenizer.json of byte-level BPE, and a tokenizer_config.json with keys that transformers would not write."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator([TEXT], trainer)
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trained.save(str(folder / "tokenizer.json"))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 1000000000000000019884624838656, "clean_up_tokenization_spaces": False, "made_by": "us",
        "added_tokens_decoder": {"1": {"content": "<s>", "special": True}},
        "chat_template": "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=3), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"bos_token":"<s>",   "eos_token":"</s>"}', encoding="utf-8")


def words(folder: Path) -> None:
    """A vocab.txt of WordPiece (BERT), lower-case."""
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    trained.train_from_iterator([TEXT], trainer)
    table = sorted(trained.get_vocab(), key=trained.token_to_id)
    (folder / "vocab.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}', encoding="utf-8"
    )


def merges(folder: Path) -> None:
    """A vocab.json and merges.txt (GPT-2) and nothing else."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator([TEXT], trainer)
    trained.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8")


def template(folder: Path) -> None:
    """As `fast`, the chat template in a file of its own, and another one in a folder."""
    fast(folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    (folder / "chat_template.jinja").write_text(values.pop("chat_template"), encoding="utf-8")
    path.write_text(json.dumps(values), encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")


KINDS: dict[str, Callable[[Path], None]] = {"fast": fast, "words": words, "merges": merges, "template": template}
"""By name, what writes each into a folder."""
