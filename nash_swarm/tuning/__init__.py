"""Tuning packed models: what is on the grid is trained to keep the original's next-token distribution."""
