"""How many positions a model has: the most tokens of a window it can be given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

LIMITS = (
    "max_position_embeddings", "n_positions", "context_length", "n_ctx", "seq_length", "max_seq_len", "max_seq_length",
    "max_sequence_length", "max_encoder_position_embeddings", "max_decoder_position_embeddings", "max_source_positions",
    "max_target_positions", "max_text_positions",
)  # fmt: skip
"""What configurations of transformers call the longest text."""

_TABLE = re.compile(r"(wpe|(embed_)?positions?(_embed(ding)?s?(_layer)?)?|positions_embed|pos_embed|pos_emb)")
"""Names of embeddings that have one row for each place of a token in the text."""
_NOT_OF_TEXT = re.compile(r"vision|visual|image|audio|speech")
_UNBOUNDED = 1 << 30


def longest_window(model: Any) -> int:
    """Tokens that a model has positions for: the least of what its configuration and its tables of positions allow."""
    limits = [*_configured(model.config), *_table_rows(model)]
    return min((limit for limit in limits if limit > 0), default=_UNBOUNDED)


def _configured(config: Any) -> Iterator[int]:
    try:
        text = config.get_text_config()
    except (AttributeError, ValueError):  # there are several
        text = config
    for holder in (config, text):
        for name in LIMITS:
            limit = getattr(holder, name, None)
            if isinstance(limit, int) and not isinstance(limit, bool):
                yield limit


def _table_rows(model: Any) -> Iterator[int]:
    """Tokens that each table of positions has rows for; some leave their first rows unused."""
    if not isinstance(model, nn.Module):
        return
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        if not isinstance(module, nn.Embedding) or not _TABLE.fullmatch(name) or _NOT_OF_TEXT.search(parent):
            continue
        offset = getattr(module, "offset", 0)  # OPT, BART
        owner = model.get_submodule(parent)
        if hasattr(owner, "create_position_ids_from_input_ids"):  # RoBERTa and its kin
            padding = getattr(owner, "padding_idx", module.padding_idx)
            offset = 1 + (padding or 0)
        yield module.num_embeddings - (offset if isinstance(offset, int) else 0)
