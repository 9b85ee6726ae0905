"""One file per family of metrics: its pure functions and the specs of its protocols."""
