"""A measured game outlives the run that measured it until the run's output is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.atomic import clean_up, short_name
from nash_swarm.files.game import load_game, save_game
from nash_swarm.files.packed_config import checksum
from nash_swarm.game.bitgame import BitGame
from nash_swarm.models.offload import checkpoint_of


@contextmanager
def kept_game(
    out: Path, settings: Mapping[str, Any], model: Any, largest: int, measured: Callable[[], BitGame]
) -> Iterator[BitGame]:
    """The game that a killed run for the same output left, else a new one; its file goes when the block ends well.

    Args:
        out: the output; the game is a hidden file beside it.
        settings: all that determines the game but the model, JSON values.
        model: what is measured.
        largest: bytes; a game with larger tables is not kept.
        measured: measures it.

    Raises:
        DataError: the file cannot be written.
    """
    kept = out.parent / f".{short_name(out.name)}.{_key(settings, model)}.npz"
    game = None
    if kept.is_file():
        with suppress(DataError):
            game = load_game(kept)
    if game is None:
        game = measured()
        _forget(out)
        if game.damage.nbytes <= largest:
            save_game(game, kept)
    try:
        yield game
    except UsageError:
        # the next run will be another one
        _forget(out)
        raise
    _forget(out)


def _forget(out: Path) -> None:
    """Remove games kept for `out`, whatever their settings were, and what killed processes left when writing them."""
    ours = re.compile(rf"\.?(\.{re.escape(short_name(out.name))}\.[0-9a-f]{{{_DIGITS}}}\.npz)(\..*)?")
    for path in list(out.parent.iterdir()):
        if found := ours.fullmatch(path.name):
            game = path.with_name(found[1])
            clean_up(game)
            game.unlink(missing_ok=True)


_DIGITS = 16


def _key(settings: Mapping[str, Any], model: Any) -> str:
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=_DIGITS // 2)
    digest.update(str(model.config.to_json_string(use_diff=True)).encode())
    checkpoint = checkpoint_of(model)
    if checkpoint is None:
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {checksum(tensor)} ".encode())
    else:
        # as much of them as `make` looks at: reading them all takes as long as measuring may
        for file in sorted({file for file, _ in checkpoint.places.values()}):
            facts = file.stat()
            digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns} ".encode())
    return digest.hexdigest()
