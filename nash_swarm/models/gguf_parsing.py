"""Parsing a GGUF file once where transformers would do it for every part that it takes from one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_PATCHING = threading.Lock()


@contextmanager
def parsed_once() -> Iterator[None]:
    """While the context is open, a GGUF file is parsed once, and names are looked up in one table per architecture.

    transformers parses the file for the configuration, for the weights and for the tokenizer, and builds gguf's table
    of tensor names for every submodule of the model, all in Python: most of what loading a small model took. Only one
    thread at a time gets in; what others do with gguf meanwhile gets the same results.
    """
    import gguf

    with _PATCHING:
        before = gguf.GGUFReader, gguf.get_tensor_name_map
        # transformers imports both names when it calls them
        gguf.GGUFReader, gguf.get_tensor_name_map = cache(before[0]), cache(before[1])
        try:
            yield
        finally:
            gguf.GGUFReader, gguf.get_tensor_name_map = before
