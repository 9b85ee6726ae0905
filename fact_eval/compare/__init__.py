"""Two models, or two sets of images, side by side."""
