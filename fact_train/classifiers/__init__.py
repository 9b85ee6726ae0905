"""The classifier that StylEx explains: its file (`classifier`) and its training (`training`).

Snapshots and models read the file; only `fact-train classifier` imports the training.
"""
