"""Checks of measured values: made again (recompute), and found by other people's code (crosscheck)."""
