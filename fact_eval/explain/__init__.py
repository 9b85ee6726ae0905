"""AttFind and its baselines: what a classifier sees in an image, and the numbers that judge it."""
