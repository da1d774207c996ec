"""What was measured outlives the run that measured it until the run's output is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nash_swarm.artifacts.game import load_game, save_game
from nash_swarm.artifacts.packed_config import checksum
from nash_swarm.errors import DataError, OutputError, UsageError
from nash_swarm.files.atomic import clean_up, short_name
from nash_swarm.game.bitgame import BitGame
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.pipeline.pieces import SUFFIX, Pieces, remove_pieces


@contextmanager
def kept_game(
    out: Path, settings: Mapping[str, Any], model: Any, largest: int, measured: Callable[..., BitGame]
) -> Iterator[BitGame]:
    """The game that a killed run for the same output left, else a new one; its file goes when the block ends well.

    Args:
        out: the output; the game is a hidden file beside it.
        settings: all that determines the game but the model, JSON values.
        model: what is measured, or its `ReferenceModel`.
        largest: bytes; a game with larger tables is not kept.
        measured: measures it; gets `pieces`, see `measure`.

    Raises:
        DataError: the file cannot be written.
    """
    kept = out.parent / f".{short_name(out.name)}.{_key(settings, ReferenceModel.of(model))}.npz"
    game = None
    if kept.is_file():
        with suppress(DataError):
            game = load_game(kept)
    if game is None:
        game = measured(pieces=Pieces(out, largest))
        if game.damage.nbytes <= largest:
            save_game(game, kept, overwrite=True)
        _forget(out, but=kept)
    try:
        yield game
    except OutputError:
        # found out late, and the next run is the same one when nothing is in the way any more
        raise
    except UsageError:
        # the next run will be another one
        _forget(out)
        raise
    _forget(out)


@contextmanager
def kept_pieces(out: Path) -> Iterator[Pieces]:
    """Where a measuring for `out` keeps what it has finished, see `measure`; it goes when the block ends well."""
    yield Pieces(out)
    _forget(out)


def _forget(out: Path, but: Path | None = None) -> None:
    """Remove what is kept for `out`, whatever its settings were, and what killed processes left when writing it.

    Args:
        out: the output.
        but: a game that stays.
    """
    stem = rf"\.{re.escape(short_name(out.name))}\.[0-9a-f]{{{_DIGITS}}}"
    ours = re.compile(rf"\.?({stem}\.npz)(\..*)?")
    parts = re.compile(rf"{stem}{re.escape(SUFFIX)}")
    for path in list(out.parent.iterdir()):
        if parts.fullmatch(path.name) and not path.is_symlink():
            remove_pieces(path)
        elif (found := ours.fullmatch(path.name)) and path.with_name(found[1]) != but:
            game = path.with_name(found[1])
            clean_up(game)
            game.unlink(missing_ok=True)


_DIGITS = 16


def _key(settings: Mapping[str, Any], reference: ReferenceModel) -> str:
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=_DIGITS // 2)
    digest.update(model_digest(reference).encode())
    return digest.hexdigest()


def model_digest(reference: ReferenceModel) -> str:
    """Sixteen hexadecimal digits that change with a model's configuration and weights; of weights on disk, with their
    files' names, sizes and times.
    """
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    digest.update(str(reference.model.config.to_json_string(use_diff=True)).encode())
    checkpoint = reference.checkpoint
    if checkpoint is None:
        for name, tensor in reference.model.state_dict().items():
            digest.update(f"{name} {checksum(tensor)} ".encode())
    else:
        # as much of them as `make` looks at: reading them all takes as long as measuring may
        for file in sorted({file for file, _ in checkpoint.places.values()}):
            facts = file.stat()
            digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns} ".encode())
    return digest.hexdigest()
