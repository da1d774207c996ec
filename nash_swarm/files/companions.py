"""Small files of a model that go with it as they are: its tokenizer's, its processor's, licences and use policies."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nash_swarm.errors import DataError, UsageError

VOCABULARY = (
    "tokenizer.json", "tokenizer.model", "tokenizer.model.v[0-9]*", "tekken.json", "tiktoken.model", "*.tiktoken",
    "vocab.json", "vocab.txt", "vocab.bpe", "encoder.json", "vocab-src.json", "vocab-tgt.json", "entity_vocab.json",
    "*spiece.model", "spm.model", "spm_char.model", "sentencepiece*.model", "*.spm",
)  # fmt: skip
"""What files that hold tokens are called, as patterns."""
TOKENIZER = (
    *VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "bpe.codes",
    "dict.txt", "emoji.json", "normalizer.json", "target_vocab.json", "byte_maps.json", "word_shape.json",
    "word_pronunciation.json", "chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""What the files of a tokenizer are called."""
_BESIDE = (
    *(f"{name}{end}" for name in ("license", "licence", "copying", "notice", "use_policy", "use-policy",
      "acceptable_use_policy") for end in ("", ".txt", ".md", ".pdf", ".rst", ".html", "-*.txt", "-*.md")),
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
"""Other companions, whatever the case of their letters."""
_LARGEST = 1 << 26
"""Bytes; what is larger is no small file."""
_NEVER = (".py", ".pyc", ".so", ".sh", ".exe", ".dll", ".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".safetensors")
"""What can be run or unpickled, and weights: not even as `LICENSE.py`."""
_READ = (
    "config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "readme.md", ".*", "__pycache__",
)  # fmt: skip
"""What a packed model has of its own in the place of the source's, and what says nothing of the model."""
_SHOWN = 6


@dataclass(frozen=True)
class Companions:
    """The small files beside a model.

    Attributes:
        files: what is copied, sorted.
        left_out: names of all else that is in the folder and whose content a packed model does not have.
    """

    files: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """One line on what is left out, as a tuple; empty if that is nothing."""
        if not self.left_out:
            return ()
        more = f" and {len(self.left_out) - _SHOWN} more" if len(self.left_out) > _SHOWN else ""
        return (f"the files {', '.join(self.left_out[:_SHOWN])}{more}",)


def is_companion(name: str) -> bool:
    """Whether a file of that name, `additional_chat_templates/` before it where it is in there, is copied as it is."""
    if name.lower().endswith(_NEVER):
        return False
    return _matches(name, TOKENIZER) or ("/" not in name and _matches(name.lower(), _BESIDE))


def companions_of(folder: Path) -> Companions:
    """The small files in a model's folder; links in it are followed, as the hub's cache consists of them.

    Raises:
        DataError: the folder cannot be read.
    """
    files: list[Path] = []
    left_out: list[str] = []
    try:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                inner = [one for one in sorted(entry.iterdir()) if _is_copied(one)] if entry.name == _TEMPLATES else []
                files += inner
                if not inner and not _matches(entry.name.lower(), _READ):
                    left_out.append(f"{entry.name}/")
            elif _is_copied(entry):
                files.append(entry)
            elif not _matches(entry.name.lower(), _READ):
                left_out.append(entry.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error
    return Companions(tuple(files), tuple(left_out))


def tokenizer_files(files: Iterable[Path]) -> list[Path]:
    """Those of the companions that belong to a tokenizer."""
    return [file for file in files if _matches(_place(file), TOKENIZER)]


def copy_companions(files: Iterable[Path], folder: Path) -> None:
    """Copy companions into a folder, byte for byte; links become files.

    Raises:
        UsageError: one of the files is no companion.
        DataError: one cannot be read or written.
    """
    for file in files:
        if not _is_copied(file):
            raise UsageError(f"{file} is no small file of a model: only tokenizers, processors and licences are copied")
        target = folder / _place(file)
        try:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            target.chmod(0o644)
        except OSError as error:
            raise DataError(f"cannot copy {file}: {error.strerror}") from error


_TEMPLATES = "additional_chat_templates"


def _place(file: Path) -> str:
    """Where a companion stands in a model's folder."""
    return f"{_TEMPLATES}/{file.name}" if file.parent.name == _TEMPLATES else file.name


def _is_copied(file: Path) -> bool:
    return is_companion(_place(file)) and file.is_file() and file.stat().st_size <= _LARGEST


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
