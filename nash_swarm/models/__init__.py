"""Models: where they come from, which of their matrices play, and how they are walked block by block."""
