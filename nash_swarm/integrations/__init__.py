"""Other libraries: transformers, peft, lm-eval."""
