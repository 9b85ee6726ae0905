"""From features to metrics to records."""
