"""Keeping what transformers prints out of what nash-swarm prints."""

from __future__ import annotations

import contextlib
import io


class quiet_transformers:
    """Context that keeps transformers' bars and warnings out of ours, and puts its settings back.

    Args:
        gguf: a GGUF file is read, whose bar ignores transformers' switch: nothing is printed on standard error. Errors
            are raised, not printed, so nothing is lost; warnings are.
    """

    def __init__(self, *, gguf: bool = False) -> None:
        self._stderr = contextlib.redirect_stderr(io.StringIO()) if gguf else contextlib.nullcontext()

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._verbosity, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._stderr.__enter__()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        self._stderr.__exit__(None, None, None)
        logging.set_verbosity(self._verbosity)
        if self._bars:
            logging.enable_progress_bar()
