"""Networks that detectors run; they import torch and are imported when a detector first needs them."""
