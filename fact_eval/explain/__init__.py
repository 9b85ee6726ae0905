"""Explanations of a classifier by a generator: attributes, their pictures, and people who rate them."""
