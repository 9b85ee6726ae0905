"""Runs the metrics on runs, snapshots and image folders, and writes records."""
