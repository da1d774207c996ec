"""Packed matrices at work: torch modules, ops, backends."""
