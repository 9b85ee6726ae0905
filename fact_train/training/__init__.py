"""Steps, losses, the loop and its state."""
