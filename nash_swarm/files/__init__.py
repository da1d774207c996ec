"""What is on disk: packed models, games and allocations, written whole or not at all."""
