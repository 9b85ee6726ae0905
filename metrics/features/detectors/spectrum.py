"""Share of an image's spectral power in high frequencies: low where blurred, high where noisy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.features.detector import Detector, register_detector

if TYPE_CHECKING:
    import torch

CUTOFF = 0.25


@register_detector
class Spectrum(Detector):
    """Power at radial frequencies of 0.25 cycles per pixel (half of Nyquist) and more, over all power.

    Luma at native size, mean subtracted, Hann window against the seam of the periodic border. A constant
    image has 0.
    """

    name = "spectrum"
    width = 1
    gives = ("spectral share",)
    label = "share of power in high frequencies"
    summary = "share of spectral power at 0.25 cycles per pixel and more"
    citation = "Durall et al. 2020, arXiv:2003.01826"

    def settings(self) -> dict:
        return {
            "network": "none",
            "layer": f"power share at radial frequency >= {CUTOFF} cycles per pixel",
            "window": "Hann, mean subtracted",
            "resize": "none",
            "range": "[0, 255]",
            "channels": "luma",
            "dtype": "float32",
            "weights_sha256": None,
        }

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        from fact_metrics.features.images import to_gray

        x = to_gray(images)[:, 0]
        height, width = x.shape[-2:]
        columns, rows = (torch.hann_window(n, periodic=False, device=x.device) for n in (width, height))
        x = (x - x.mean(dim=(1, 2), keepdim=True)) * rows[:, None] * columns
        power = torch.fft.fft2(x).abs().square()
        frequency = torch.fft.fftfreq(height)[:, None].hypot(torch.fft.fftfreq(width)).to(x.device)
        total = power.sum(dim=(1, 2))
        high = (power * (frequency >= CUTOFF)).sum(dim=(1, 2))
        return torch.where(total > 0, high / total, 0.0).unsqueeze(1)
