"""Band amplification, additive noise and cutout (Karras et al. 2020, appendix B)."""

import torch
from torch import Tensor

from fact_train.augment.wavelets import BANDS, band_filters

GAIN_STD = 1.0  # of log2 of a band's gain
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected share of every band in a natural image
NOISE_STD = 0.1  # of the noise's own standard deviation, a half-normal variable
CUTOUT_SIZE = 0.5  # of width and height


def draw_gains(
    n: int, p: Tensor, *, generator: torch.Generator | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Gains of the four bands [n, 4], and [n] bool: whether any gain differs from 1.

    Each band is amplified with probability p by a log-normal factor. All bands are then divided by the factor
    by which this changes the expected norm of a natural image.
    """
    on = torch.rand(n, BANDS, generator=generator, device=p.device, dtype=dtype) < p
    z = torch.randn(n, BANDS, generator=generator, device=p.device, dtype=dtype)
    factor = torch.exp2(torch.where(on, z * GAIN_STD, 0.0))
    parts = [1 + power * (factor[:, i].square() - 1) for i, power in enumerate(BAND_POWER)]
    norm = torch.stack(parts, dim=1).prod(dim=1, keepdim=True).sqrt()
    return factor / norm, on.any(dim=1)


def amplify(images: Tensor, gains: Tensor) -> Tensor:
    """Multiply every frequency band of both axes of [N, C, H, W] by its gain [N, 4]."""
    rows, columns = (_amplifier(gains, side, images) for side in images.shape[2:])
    return rows @ images @ columns.transpose(2, 3)


def _amplifier(gains: Tensor, side: int, images: Tensor) -> Tensor:
    """The filters of all bands, added by their gains, for an axis of `side` pixels: [N, 1, side, side]."""
    bands = band_filters(side, images.dtype, images.device)
    return (gains @ bands.reshape(BANDS, -1)).reshape(-1, 1, side, side)


def add_noise(images: Tensor, p: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """With probability p, add white noise. Its standard deviation |N(0, 0.1^2)| is drawn per sample."""
    n = len(images)
    like = dict(generator=generator, device=images.device, dtype=images.dtype)
    on = torch.rand(n, 1, 1, 1, **like) < p
    std = torch.randn(n, 1, 1, 1, **like).abs() * NOISE_STD
    noise = torch.randn(images.shape, **like)
    return images + torch.where(on, noise * std, 0.0)


def cut_out(images: Tensor, p: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """With probability p, set a box of half the width and half the height to 0.

    Its centre is uniform; the border clips it.
    """
    n, _, h, w = images.shape
    like = dict(generator=generator, device=images.device, dtype=images.dtype)
    on = torch.rand(n, 1, 1, 1, **like) < p
    center = torch.rand(n, 2, **like)
    rows, columns = (
        ((torch.arange(k, device=images.device, dtype=images.dtype) + 0.5) / k - center[:, axis, None]).abs()
        < CUTOUT_SIZE / 2
        for axis, k in ((0, h), (1, w))
    )
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(on & box, 0.0, images)
