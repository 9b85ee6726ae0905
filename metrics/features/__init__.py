"""Feature detectors: their specs without torch; networks and weights are read at first use."""

import importlib
import pkgutil

from fact_metrics.features import detectors
from fact_metrics.features.detector import (
    DETECTORS,
    Detector,
    DetectorSpec,
    detector_spec,
    get_detector,
    list_detectors,
    register_detector,
)

__all__ = [
    "DETECTORS",
    "Detector",
    "DetectorSpec",
    "detector_spec",
    "get_detector",
    "list_detectors",
    "register_detector",
]

for _module in pkgutil.iter_modules(detectors.__path__):
    importlib.import_module(f"{detectors.__name__}.{_module.name}")
