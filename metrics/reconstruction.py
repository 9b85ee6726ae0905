"""Distances between pairs of images: LPIPS, mean squared error and PSNR, with the value range checked.

LPIPS: Zhang et al. 2018, arXiv:1801.03924, on the shift-tolerant networks of Ghildyal & Liu 2022,
arXiv:2207.13686; equals the stlpips-pytorch package. Peers accept [0, 1] or [0, 255] silently and return
another number; here it is an error.
"""

import math

import torch

from metrics.features import get_detector

PEAK = 2.0
BATCH = 64
RANGE_TOLERANCE = 1e-3


def compute_lpips(
    images_a: torch.Tensor,
    images_b: torch.Tensor,
    *,
    detector: str = "stlpips_alex",
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """LPIPS of every pair, float32 [N] on the CPU. Lower is more alike; 0 for equal images; symmetric.

    Both are [N, 1 or 3, H, W], float32 in [-1, 1], H and W at least 32; they pass in batches.
    Raises ValueError where a shape, type or range is off.
    """
    _check_pair(images_a, images_b)
    net = get_detector(detector, device)
    pairs = zip(images_a.split(BATCH), images_b.split(BATCH), strict=True)
    return torch.cat([net.distance(a, b).cpu() for a, b in pairs])


def compute_mse(images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """Mean squared error of every pair, float64 [N]. Lower is more alike; float32 [N, C, H, W] in [-1, 1]."""
    _check_pair(images_a, images_b)
    return mean_squared_difference(images_a, images_b)


def compute_psnr(images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of every pair, float64 [N]. Higher is more alike; infinite if equal.

    Both are float32 [N, C, H, W] in [-1, 1]: the peak-to-peak range is 2. Raises ValueError on another range.
    """
    return psnr_from_mse(compute_mse(images_a, images_b))


def psnr_from_mse(mse: torch.Tensor) -> torch.Tensor:
    """dB at a peak-to-peak range of 2; infinite where the error is 0."""
    return 10 * (2 * math.log10(PEAK) - mse.log10())


def mean_squared_difference(images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference per image, float64 [N], whatever the range."""
    return (images_a.double() - images_b.double()).square().flatten(1).mean(dim=1)


def _check_pair(images_a: torch.Tensor, images_b: torch.Tensor) -> None:
    for images in (images_a, images_b):
        if images.ndim != 4 or images.shape != images_a.shape or not images.is_floating_point():
            raise ValueError(
                f"pairs are float images [N, C, H, W] of one shape, got {images_a.dtype}"
                f" {list(images_a.shape)} and {images_b.dtype} {list(images_b.shape)}"
            )
        low, high = images.min().item(), images.max().item()
        if not (low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(f"images lie in [{low:.4g}, {high:.4g}], expected [-1, 1]")
