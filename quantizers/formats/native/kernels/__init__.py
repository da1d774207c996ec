"""Kernels of N16K32: scale search, rounding of one group of columns, damage of every width."""
