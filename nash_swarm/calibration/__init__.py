"""Calibration: text, sequences, statistics, and walks through a model that collect them."""
