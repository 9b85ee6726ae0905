"""The classifier that StylEx explains: its file and its training."""
