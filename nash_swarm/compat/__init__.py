"""Private and unstable names of transformers and torch: one function a need, imported nowhere else in the package."""
