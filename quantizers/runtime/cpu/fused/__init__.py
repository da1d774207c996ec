"""Kernels of a decode step: what stands between the products of one token, and whole layers."""
