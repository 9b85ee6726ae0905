"""Feature detectors. Importing this package registers them; weights are read at first use."""

from fact_metrics.features import (
    clip,
    digits,
    dinov2,
    efficientnet,
    inception_detectors,
    lpips,
    pixels,
    spectrum,
    stlpips,
    vgg16,
)
from fact_metrics.features.detector import (
    DETECTORS,
    Detector,
    get_detector,
    list_detectors,
    register_detector,
)

__all__ = [
    "DETECTORS",
    "Detector",
    "clip",
    "digits",
    "dinov2",
    "efficientnet",
    "get_detector",
    "inception_detectors",
    "list_detectors",
    "lpips",
    "pixels",
    "register_detector",
    "spectrum",
    "stlpips",
    "vgg16",
]
