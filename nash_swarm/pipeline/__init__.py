"""The stages, in the order data flows: measure -> solve -> pack, and `compress`, which is all of them."""
