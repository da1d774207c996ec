"""A solver for nash-swarm that starts at the top and gives bits back."""
