"""One file per group of commands: options and printing, no logic."""
