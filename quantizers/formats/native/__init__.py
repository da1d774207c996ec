"""N16K32, the native format: one byte buffer per matrix, readable from its layout alone."""
