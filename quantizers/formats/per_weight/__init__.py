"""Single weights as cells: every weight has a width of its own on the shared range of its group."""
