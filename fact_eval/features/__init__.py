"""From images to features: one pass for all detectors, stored in chunks."""
