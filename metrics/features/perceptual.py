"""Detectors that also measure the distance between two images (LPIPS). Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.features.detector import Detector

if TYPE_CHECKING:
    import torch

    from fact_metrics.features.networks.perceptual import PerceptualNet

MIN_RESOLUTION = 32


class PerceptualDetector(Detector):
    """A detector with a distance; `net` is its PerceptualNet.

    Features are the spatial means of the weighted unit activations: |f(a) - f(b)|^2 <= distance(a, b)
    (Jensen), so that their squared distance is a lower bound of LPIPS.
    """

    gives = ("features", "distance")
    net: PerceptualNet

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        from fact_metrics.base.pixels import to_signed

        return torch.cat([h.mean(dim=(2, 3)) for h in self._outputs(to_signed(images))], dim=1)

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """LPIPS [N] of float images [N, 1 or 3, H, W] in about [-1, 1], neither clamped nor quantised.

        Raises ValueError on integer images, unequal shapes or sides under 32 pixels.
        """
        import torch

        from fact_metrics.base.tf32 import tf32

        if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
            raise ValueError(
                f"LPIPS takes float images in [-1, 1] of one shape, got {a.dtype} {list(a.shape)}"
                f" and {b.dtype} {list(b.shape)}"
            )
        with torch.inference_mode(), tf32(False), torch.autocast(self.device.type, enabled=False):
            return self.differentiable_distance(a.to(self.device), b.to(self.device))

    def differentiable_distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The same [N] as a loss: on the images' own device, with gradients to both."""
        import torch

        outputs = self._outputs(torch.cat([a, b]).float())
        pairs = (h.chunk(2) for h in outputs)
        return sum((x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs)

    def _outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        import torch

        from fact_metrics.features.images import to_rgb

        if min(images.shape[-2:]) < MIN_RESOLUTION:
            raise ValueError(
                f"{self.name} needs images of {MIN_RESOLUTION} pixels or more, got {list(images.shape)}"
            )
        with torch.inference_mode(False):  # weights made under it could not be differentiated through
            net = self.net
        return net(to_rgb(images))
