"""What an interrupted command says and returns; constants alone, so that importing them takes no time."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
HALTED = "nash-swarm: interrupted; no half-written output is left"
