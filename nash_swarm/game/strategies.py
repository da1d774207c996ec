"""Which bit-widths agents are offered unless others are asked for."""

DEFAULT_STRATEGIES = (2, 3, 4, 5, 6, 8)
