"""transformers: the quantizer that loads packed models, registered when transformers is imported."""
