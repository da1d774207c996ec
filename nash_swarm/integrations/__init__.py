"""Other libraries: transformers."""
