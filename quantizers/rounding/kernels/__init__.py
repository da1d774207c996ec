"""Numba kernels of rounding. Every kernel has a NumPy twin that the tests hold it against."""
