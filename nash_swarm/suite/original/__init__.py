"""The protocol of the document that this project started from, and the same methods under honest accounting."""
