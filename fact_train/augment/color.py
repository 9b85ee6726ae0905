"""Colour transformations: one affine map of the channels per sample (Karras et al. 2020, appendix B)."""

import math

import torch
from torch import Tensor

BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5  # of log2 of the factor
SATURATION_STD = 1.0  # of log2 of the factor


def color_matrices(
    n: int, channels: int, p: Tensor, *, generator: torch.Generator | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """A map [n, 3, 4] of RGB per sample (3x3 matrix and offset) and whether it does anything, [n] bool.

    In this order, each with probability p: brightness, contrast, luma flip (a Householder reflection about
    the plane of no luma, for half of those that draw it), hue rotation about the gray axis, saturation. The
    last two are left out for one channel.
    """
    device = p.device
    count = 5 if channels == 3 else 3
    on = torch.rand(n, 5, generator=generator, device=device, dtype=dtype)[:, :count] < p
    z = torch.randn(n, 3, generator=generator, device=device, dtype=dtype)
    u = torch.rand(n, 2, generator=generator, device=device, dtype=dtype)
    on[:, 2] &= u[:, 0] < 0.5

    contrast = torch.where(on[:, 1], torch.exp2(z[:, 1] * CONTRAST_STD), 1.0)
    offset = torch.where(on[:, 0], z[:, 0] * BRIGHTNESS_STD, 0.0) * contrast
    # Luma flip, saturation and hue act on the gray axis v and on its complement separately.
    along = torch.where(on[:, 2], -1.0, 1.0).to(dtype) * contrast
    across, angle = contrast, torch.zeros_like(contrast)
    if channels == 3:
        angle = torch.where(on[:, 3], (u[:, 1] * 2 - 1) * math.pi, 0.0)
        across = across * torch.where(on[:, 4], torch.exp2(z[:, 2] * SATURATION_STD), 1.0)
    return _about_gray(along, across, angle, offset * torch.sign(along)), on.any(dim=1)


def _about_gray(along: Tensor, across: Tensor, angle: Tensor, offset: Tensor) -> Tensor:
    """[n, 3, 4]: `along` times the gray part, `across` times the rest turned by `angle`, plus `offset`.

    Rodrigues' rotation about v = (1, 1, 1) / sqrt 3: v v^T + cos (I - v v^T) + sin [v]x.
    """
    eye = torch.eye(3, dtype=along.dtype, device=along.device)
    gray = torch.full_like(eye, 1 / 3)
    cross = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)
    basis = torch.stack([gray, eye - gray, cross])
    parts = torch.stack([along, across * angle.cos(), across * angle.sin()], dim=1)
    linear = (parts[:, :, None, None] * basis).sum(dim=1)
    return torch.cat([linear, offset[:, None, None].expand(-1, 3, 1)], dim=2)


def apply_color(images: Tensor, matrices: Tensor) -> Tensor:
    """The maps [N, 3, 4] applied to [N, 3, H, W]; one channel takes the mean over the rows."""
    n, c, h, w = images.shape
    if c == 1:
        gray = matrices.mean(dim=1)
        return images * gray[:, :3].sum(dim=1).reshape(n, 1, 1, 1) + gray[:, 3].reshape(n, 1, 1, 1)
    return torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], images.reshape(n, c, h * w)).reshape(
        n, c, h, w
    )
