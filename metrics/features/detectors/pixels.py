"""Raw pixels as features: the mean squared error between pictures, beside the perceptual detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fact_metrics.features.detector import Detector, register_detector

if TYPE_CHECKING:
    import torch

SIZE = 32


class _Pixels(Detector):
    """Pixels in [0, 1] over sqrt(count): the squared distance of two rows is their mean squared error."""

    citation = "Stein et al. 2023, arXiv:2306.04675 (pixel encoder)"
    channels: ClassVar[str]

    def settings(self) -> dict:
        return {
            "network": "none",
            "layer": "pixels / sqrt(number of values)",
            "resize": "torch-aa",
            "size": SIZE,
            "range": "[0, 1]",
            "channels": self.channels,
            "dtype": "float32",
            "weights_sha256": None,
        }

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        from fact_metrics.features.images import to_gray, to_rgb
        from fact_metrics.features.resize import resize

        chosen = to_gray(images) if self.channels == "luma" else to_rgb(images).float()
        return resize(chosen, mode="torch-aa", size=SIZE).flatten(1) / (255 * self.width**0.5)


@register_detector
class Pixels(_Pixels):
    name = "pixels"
    width = SIZE * SIZE
    label = "gray pixels (MSE)"
    summary = "gray pixels at 32x32; squared distance = mean squared error"
    channels = "luma"


@register_detector
class PixelsRGB(_Pixels):
    name = "pixels_rgb"
    width = 3 * SIZE * SIZE
    label = "colour pixels (MSE)"
    summary = "colour pixels at 32x32; squared distance = mean squared error"
    channels = "RGB, gray repeated"
