"""Which files nash-swarm writes into the folders it makes; a folder that holds anything else is never replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nash_swarm.files.companions import is_companion

METHOD = "nash_swarm"
"""What `quant_method` of a packed model's config.json says."""
REPORT = "nash_swarm.json"
MODEL_FILES = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "config.json",
    "generation_config.json", REPORT, "README.md",
)  # fmt: skip
WRITTEN_TOKENIZER_FILES = ("sentencepiece.bpe.model", "source.spm", "target.spm", "prophetnet.tokenizer")
"""What tokenizers of transformers write besides what is copied of a source's."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that is written as a whole.

    Attributes:
        noun: what it holds.
        files: whether a file of a name belongs to it.
        recognised: whether a folder holds what `noun` says.
        below: patterns of the names of files in its sub-folders, by the sub-folder's name.
    """

    noun: str
    files: Callable[[str], bool]
    recognised: Callable[[Path], bool]
    below: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def objection(self, folder: Path) -> str:
        """Why a folder is none that was written as this kind, or is one with something else in it; else empty.

        Names the first entry that is not written for this kind. Symbolic links are none.
        """
        for path in sorted(folder.iterdir()):
            if path.name in self.below and path.is_dir() and not path.is_symlink():
                for inner in sorted(path.iterdir()):
                    if not _fits(inner, self.below[path.name]):
                        return f"it holds {path.name}/{inner.name}, which nash-swarm did not write"
            elif not _plain(path) or not self.files(path.name):
                return f"it holds {path.name}, which nash-swarm did not write"
        return "" if self.recognised(folder) else f"it is no {self.noun} of nash-swarm"


def holds_packed_model(folder: Path) -> bool:
    """Whether a folder's config.json says that it holds a packed model."""
    config = _read_table(folder / "config.json").get("quantization_config")
    return isinstance(config, dict) and config.get("quant_method") == METHOD


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


def _in_packed_model(name: str) -> bool:
    patterns = (*MODEL_FILES, *WRITTEN_TOKENIZER_FILES)
    return is_companion(name) or any(fnmatchcase(name, pattern) for pattern in patterns)


PACKED_MODEL = FolderKind(
    "packed model", _in_packed_model, holds_packed_model, {"additional_chat_templates": ("*.jinja",)}
)
QUESTIONS = "questions.jsonl"
TASK_FILES = FolderKind(
    "set of task files",
    lambda name: name in (QUESTIONS, "last-word.yaml", "cloze.yaml"),
    lambda folder: (folder / QUESTIONS).is_file(),
)
