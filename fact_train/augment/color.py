"""Colour transformations: one affine map of the channels per sample (Karras et al. 2020, appendix B).

Each map acts on the gray axis v = (1, 1, 1) / sqrt 3 and on the plane orthogonal to it separately. So does
their composition.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5  # of log2 of the factor
SATURATION_STD = 1.0  # of log2 of the factor


@dataclass(frozen=True)
class ColorMaps:
    """Per sample [N]: luma times `along` plus `offset`; chroma scaled by `across` and rotated by `angle`."""

    along: Tensor
    across: Tensor
    angle: Tensor
    offset: Tensor

    def matrices(self) -> Tensor:
        """[N, 3, 3], by Rodrigues: along v v^T + across (cos (I - v v^T) + sin [v]x)."""
        parts = [self.along, self.across * self.angle.cos(), self.across * self.angle.sin()]
        basis = _basis(self.along.dtype, self.along.device)
        return (torch.stack(parts, dim=1)[:, :, None, None] * basis).sum(dim=1)


@functools.cache
def _basis(dtype: torch.dtype, device: torch.device) -> Tensor:
    """v v^T, I - v v^T and the cross product with v: [3, 3, 3]."""
    eye = torch.eye(3, dtype=torch.float64)
    gray = torch.full_like(eye, 1 / 3)
    cross = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)
    return torch.stack([gray, eye - gray, cross]).to(device, dtype)


def draw_colors(
    n: int, channels: int, p: Tensor, *, generator: torch.Generator | None, dtype: torch.dtype
) -> tuple[ColorMaps, Tensor]:
    """Colour maps of n samples, and [n] bool: whether each map differs from the identity.

    In this order, each with probability p: brightness, contrast, luma flip (a Householder reflection of the
    gray axis, for half of those that draw it), hue rotation, saturation. The last two need colour.
    """
    like = dict(generator=generator, device=p.device, dtype=dtype)
    on = torch.rand(n, 5, **like) < p
    u, z = torch.rand(n, 2, **like), torch.randn(n, 3, **like)
    bright, contrast, flip, hue, saturate = on.unbind(dim=1)
    flip = flip & (u[:, 0] < 0.5)
    if channels == 1:
        hue = saturate = torch.zeros_like(flip)
    factor = torch.exp2(torch.where(contrast, z[:, 1] * CONTRAST_STD, 0.0))
    along = torch.where(flip, -factor, factor)
    maps = ColorMaps(
        along=along,
        across=factor * torch.exp2(torch.where(saturate, z[:, 2] * SATURATION_STD, 0.0)),
        angle=torch.where(hue, (u[:, 1] * 2 - 1) * math.pi, 0.0),
        offset=torch.where(bright, z[:, 0] * BRIGHTNESS_STD, 0.0) * along,
    )
    return maps, bright | contrast | flip | hue | saturate


def apply_colors(images: Tensor, maps: ColorMaps) -> Tensor:
    """Apply the maps to [N, C, H, W]. A single channel is luma: the mean over the rows of the map."""
    n, c, h, w = images.shape
    if c == 1:
        return images * maps.along.reshape(n, 1, 1, 1) + maps.offset.reshape(n, 1, 1, 1)
    offset = maps.offset[:, None, None]
    return torch.baddbmm(offset, maps.matrices(), images.reshape(n, c, h * w)).reshape(n, c, h, w)
