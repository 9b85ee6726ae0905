"""What papers report, as data, and which presets are our measured baselines."""
