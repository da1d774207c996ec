"""Shared by the tests: tiny models, random layouts, and slow but obvious twins of the kernels."""
