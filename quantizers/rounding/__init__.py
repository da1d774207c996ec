"""Rounding methods: weights onto the grid of a format."""
