"""What stages hand on as files: games, allocations, packed models."""
