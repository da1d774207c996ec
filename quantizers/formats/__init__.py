"""Formats: what is on disk, and what the game needs to know of it."""
