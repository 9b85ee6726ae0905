"""Feature detectors. Importing this package registers them; weights are read at first use."""

from metrics.features import digits, efficientnet, pixels, spectrum, stlpips
from metrics.features.detector import DETECTORS, Detector, get_detector, list_detectors, register_detector

__all__ = [
    "DETECTORS",
    "Detector",
    "digits",
    "efficientnet",
    "get_detector",
    "list_detectors",
    "pixels",
    "register_detector",
    "spectrum",
    "stlpips",
]
