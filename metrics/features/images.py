"""Conversions of images that detectors share: channels, normalisation."""

import torch
from torch import Tensor


def to_rgb(images: Tensor) -> Tensor:
    """Images [N, 3, H, W]; a single channel is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def to_gray(images: Tensor) -> Tensor:
    """float32 luma [N, 1, H, W] in [0, 255] of uint8 images (ITU-R BT.601 weights; gray stays as it is)."""
    if images.shape[1] == 1:
        return images.float()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(dim=1, keepdim=True)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 images in [0, 255] less the means and over the deviations, which are those of [0, 1]."""
    shift, scale = (
        torch.tensor(values, dtype=torch.float32, device=images.device).mul_(255).view(1, 3, 1, 1)
        for values in (mean, std)
    )
    return (images - shift) / scale


def centre(images: Tensor, size: int) -> Tensor:
    """The middle [N, C, size, size]; an odd row or column more stays at the bottom or right."""
    top, left = ((length - size) // 2 for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]
