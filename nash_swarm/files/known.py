"""Which files nash-swarm writes into the folders it makes; a folder that holds anything else is never replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

METHOD = "nash_swarm"
"""What `quant_method` of a packed model's config.json says."""
REPORT = "nash_swarm.json"
MODEL_FILES = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "config.json",
    "generation_config.json", REPORT, "README.md",
)  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "bpe.codes", "dict.txt", "emoji.json", "entity_vocab.json", "normalizer.json",
    "byte_maps.json", "word_shape.json", "word_pronunciation.json", "source.spm", "target.spm", "vocab-src.json",
    "vocab-tgt.json", "target_vocab.json", "tokenizer.model", "tiktoken.model", "tekken.json", "*spiece.model",
    "spm.model", "spm_char.model", "sentencepiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json", "prophetnet.tokenizer",
)  # fmt: skip
"""What tokenizers of transformers write, and what is copied of a source's."""
COPIED_FILES = (
    "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json",
)  # fmt: skip
"""Small files of a source that go with its weights."""
PACKED_FILES = (*MODEL_FILES, *TOKENIZER_FILES, *COPIED_FILES)
"""Patterns of all names that the folder of a packed model may hold, besides those that its report has as `copied`."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that is written as a whole.

    Attributes:
        noun: what it holds.
        files: patterns of the names of its files.
        recognised: whether a folder holds what `noun` says.
        recorded: further names of files, by what the folder itself says.
        below: patterns of the names of files in its sub-folders, by the sub-folder's name.
    """

    noun: str
    files: tuple[str, ...]
    recognised: Callable[[Path], bool]
    recorded: Callable[[Path], frozenset[str]] = lambda _: frozenset()
    below: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def objection(self, folder: Path) -> str:
        """Why a folder is none that was written as this kind, or is one with something else in it; else empty.

        Names the first entry that is not written for this kind. Symbolic links are none.
        """
        further = self.recorded(folder)
        for path in sorted(folder.iterdir()):
            if path.name in self.below and path.is_dir() and not path.is_symlink():
                for inner in sorted(path.iterdir()):
                    if not _fits(inner, self.below[path.name]):
                        return f"it holds {path.name}/{inner.name}, which nash-swarm did not write"
            elif not _plain(path) or (path.name not in further and not _fits(path, self.files)):
                return f"it holds {path.name}, which nash-swarm did not write"
        return "" if self.recognised(folder) else f"it is no {self.noun} of nash-swarm"


def holds_packed_model(folder: Path) -> bool:
    """Whether a folder's config.json says that it holds a packed model."""
    config = _read_table(folder / "config.json").get("quantization_config")
    return isinstance(config, dict) and config.get("quant_method") == METHOD


def _copied(folder: Path) -> frozenset[str]:
    """Names of further files of the source that the report of a packed model has."""
    names = _read_table(folder / REPORT).get("copied")
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def _fits(path: Path, patterns: tuple[str, ...]) -> bool:
    return _plain(path) and any(fnmatchcase(path.name, pattern) for pattern in patterns)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read_table(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


PACKED_MODEL = FolderKind(
    "packed model", PACKED_FILES, holds_packed_model, _copied, {"additional_chat_templates": ("*.jinja",)}
)
QUESTIONS = "questions.jsonl"
TASK_FILES = FolderKind(
    "set of task files", (QUESTIONS, "last-word.yaml", "cloze.yaml"), lambda folder: (folder / QUESTIONS).is_file()
)
