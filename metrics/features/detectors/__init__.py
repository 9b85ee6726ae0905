"""Detectors, a file a network: every module here is read when `fact_metrics.features` is imported."""
