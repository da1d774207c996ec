"""Tuning: distil the original's next-token distribution into a packed model's scales, zero-points, norms and biases."""
