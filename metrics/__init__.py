"""Numbers from images and features. Imports nothing else of this project."""
