"""Commands beside training: options and printing, no logic."""
