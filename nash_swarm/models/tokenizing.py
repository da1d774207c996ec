"""Tokenizers from a model's folder; one that cannot be loaded is told apart from one that is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError
from nash_swarm.files.companions import VOCABULARY, companions_of, tokenizer_files
from nash_swarm.files.folders import is_pointer, pointer_problem
from nash_swarm.models.quiet import quiet_transformers

_LIBRARIES = (("sentencepiece", "sentencepiece"), ("tiktoken", "tiktoken"), ("protobuf", "google.protobuf"))
"""What transformers needs for some tokenizers and does not bring: the package, and the module it has."""


def folder_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a model's folder, or `None` if there are no files of one.

    Raises:
        DataError: there are, and they are damaged or incomplete, or need a package that is not installed; the message
            names the file or the package.
    """
    from transformers import AutoTokenizer

    files = tokenizer_files(companions_of(folder).files)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # transformers and tokenizers raise whatever the files make them trip over
        check_api(error)
        if not files:  # a model without a tokenizer is fine as long as token ids are given
            return None
        raise DataError(_cause(folder, files, error)) from error
    # what transformers makes up for some architectures when there are no files has no vocabulary
    if tokenizer.vocab_size:
        return tokenizer
    if files:
        raise DataError(_cause(folder, files, ValueError("it has no vocabulary")))
    return None


def _cause(folder: Path, files: Sequence[Path], error: Exception) -> str:
    """One line on why a tokenizer cannot be loaded."""
    for file in files:
        if problem := _damage(file):
            return problem
    if not any(file.match(pattern) for file in files for pattern in VOCABULARY):
        return (
            f"the tokenizer in {folder} is incomplete: there is {files[0].name} but no vocabulary "
            "(tokenizer.json, tokenizer.model, vocab.json or vocab.txt)"
        )
    text = " ".join(str(one) for one in _chain(error))
    if needed := _needed(files, text.lower()):
        return f"the tokenizer in {folder} needs {' and '.join(needed)}; run: pip install {' '.join(needed)}"
    if "trust_remote_code" in text:
        return f"the tokenizer in {folder} comes with Python code of its own; --trust-remote-code lets it run"
    lines = str(error).strip().splitlines()
    return f"cannot load the tokenizer in {folder}: {type(error).__name__}: {lines[0] if lines else ''}"


def _needed(files: Sequence[Path], text: str) -> list[str]:
    """Packages that an error's text names, or means, and that are not installed.

    transformers tries vocabularies of sentencepiece as tiktoken's too, and names the one it tried last.
    """
    named = {package for package, _ in _LIBRARIES if package in text}
    if named & {"sentencepiece", "tiktoken"}:
        named -= {"sentencepiece", "tiktoken"}
        named.add("sentencepiece" if any(_is_sentencepiece(file) for file in files) else "tiktoken")
    return [package for package, module in _LIBRARIES if package in named and not _installed(module)]


def _is_sentencepiece(file: Path) -> bool:
    """Whether a file is a vocabulary of sentencepiece: a message whose first field is a piece, not lines of text."""
    if file.suffix not in (".model", ".spm") and ".model.v" not in file.name:
        return False
    with file.open("rb") as stream:
        return stream.read(1) == b"\n"


def _damage(file: Path) -> str:
    """What is wrong with a tokenizer's file; empty if nothing can be seen."""
    if is_pointer(file):
        return pointer_problem(file)
    if not file.stat().st_size and file.name != "dict.txt":
        return f"{file} is damaged: it is empty"
    if file.suffix != ".json":
        return ""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{file} is damaged: it is no JSON ({error})"
    if not isinstance(values, dict) and file.name != "added_tokens.json":
        return f"{file} is damaged: it holds no JSON object"
    if file.name != "tokenizer.json":
        return ""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain exceptions
        check_api(error)
        return f"{file} is damaged or of a newer release of tokenizers: {str(error).strip().splitlines()[0]}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
