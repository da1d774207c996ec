"""Threads that share the rows of a compiled function."""
