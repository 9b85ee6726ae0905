"""Distances between pairs of images: LPIPS, mean squared error, PSNR and SSIM, one value per pair.

LPIPS: Zhang et al. 2018, arXiv:1801.03924, with any network. SSIM: Wang et al. 2004, IEEE TIP 13(4); equals
scikit-image with its Gaussian window on [0, 1].

Images are [N, 1 or 3, H, W] in a range that the caller states, `value_range`, and that is held against the
data. Peers check nothing and return another number: [0, 1] passed as [-1, 1] gives about half the LPIPS and a
quarter of the squared error. Here

    values outside the stated range are an error;
    (-1, 1), floats: each side must hold a value below -0.1, or it looks like [0, 1];
    (0, 255), floats: each side must hold a value above 2, or it looks like [0, 1];
    uint8 goes with (0, 255) alone, and nothing else needs to be shown.

Dark images in [-1, 1] lie near -1 and pass. `narrow_ok=True` is the way out where every picture of a side
really is that bright in [-1, 1], or that dark in [0, 255]; values outside the range stay an error.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from fact_metrics.features import get_detector
from fact_metrics.features.detector import Detector
from fact_metrics.features.images import to_rgb

RANGES = ((-1, 1), (0, 1), (0, 255))
RANGE_TOLERANCE = 1e-3  # of half the range, for what rounding adds
# What [0, 1] never reaches, overshoot of a network included.
SEEN_BELOW, SEEN_ABOVE = -0.1, 2.0
BATCH = 64
PART = 2**20  # pixels a side that pass at once
SMALLEST_LPIPS = 32  # pixels: the five stages of AlexNet and VGG16 halve until nothing is left
PEAK = 2.0
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def compute_lpips(
    images_a: torch.Tensor,
    images_b: torch.Tensor,
    *,
    detector: str | Detector | Distance = "stlpips_alex",
    value_range: tuple[float, float] = (-1, 1),
    narrow_ok: bool = False,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """LPIPS of every pair, float32 [N] on the CPU. Lower is more alike; 0 for equal images; symmetric.

    `detector` is a registered name, a detector with `distance`, or any function of two float32 batches
    [N, 3, H, W] in [-1, 1] on `device` that gives N values, such as a module of the `lpips` package. A gray
    image goes in as three equal channels. Sides are at least 32 pixels.
    Raises ValueError where a shape, type, channel count or range is off.
    """
    _check_pair(images_a, images_b, value_range, narrow_ok=narrow_ok)
    if min(images_a.shape[-2:]) < SMALLEST_LPIPS:
        found = f"{images_a.shape[-2]}x{images_a.shape[-1]}"
        raise ValueError(f"LPIPS needs images of {SMALLEST_LPIPS} pixels or more, got {found}")
    distance = _distance(detector, device)

    def lpips(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        pair = (to_rgb(_to_signed(x.to(device), value_range)) for x in (a, b))
        values = distance(*pair)
        if values.numel() != len(a):
            raise ValueError(f"{detector} gave {list(values.shape)} for {len(a)} pairs, not a value each")
        return values.reshape(-1).cpu()

    with torch.no_grad():
        return _in_parts(lpips, images_a, images_b)


def compute_mse(
    images_a: torch.Tensor,
    images_b: torch.Tensor,
    *,
    value_range: tuple[float, float] = (-1, 1),
    narrow_ok: bool = False,
) -> torch.Tensor:
    """Mean squared error of every pair, float64 [N]. Lower is more alike.

    In units of [-1, 1] whatever range the images come in, so that numbers compare. Raises ValueError where a
    shape, type, channel count or range is off.
    """
    _check_pair(images_a, images_b, value_range, narrow_ok=narrow_ok)
    scale = PEAK / (value_range[1] - value_range[0])
    return _in_parts(mean_squared_difference, images_a, images_b) * scale**2


def compute_psnr(
    images_a: torch.Tensor,
    images_b: torch.Tensor,
    *,
    value_range: tuple[float, float] = (-1, 1),
    narrow_ok: bool = False,
) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of every pair, float64 [N]. Higher is more alike; infinite if equal.

    The peak is the width of the range. Raises ValueError where a shape, type, channel count or range is off.
    """
    return psnr_from_mse(compute_mse(images_a, images_b, value_range=value_range, narrow_ok=narrow_ok))


def compute_ssim(
    images_a: torch.Tensor,
    images_b: torch.Tensor,
    *,
    value_range: tuple[float, float] = (-1, 1),
    narrow_ok: bool = False,
) -> torch.Tensor:
    """Structural similarity of every pair, float64 [N] in [-1, 1]. Higher is more alike; 1 for equal images.

    Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over the positions where the
    window fits ("valid") and over channels. SSIM depends on where black lies, so all ranges are first brought
    to [0, 1]. Sides are at least 11 pixels. Raises ValueError where a shape, type, channel count or range is
    off.
    """
    _check_pair(images_a, images_b, value_range, narrow_ok=narrow_ok)
    if min(images_a.shape[-2:]) < WINDOW:
        found = f"{images_a.shape[-2]}x{images_a.shape[-1]}"
        raise ValueError(f"SSIM needs images of {WINDOW} pixels or more, got {found}")
    low, high = value_range
    return _in_parts(
        lambda a, b: _ssim(*((x.double() - low) / (high - low) for x in (a, b))), images_a, images_b
    )


def psnr_from_mse(mse: torch.Tensor) -> torch.Tensor:
    """dB at a peak-to-peak range of 2; infinite where the error is 0."""
    return 10 * (2 * math.log10(PEAK) - mse.log10())


def mean_squared_difference(images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference per image, float64 [N], whatever the range."""
    return (images_a.double() - images_b.double()).square().flatten(1).mean(dim=1)


def mean_and_stderr(values: torch.Tensor) -> tuple[float, float | None]:
    """Mean of values [N] and its standard error sd / sqrt(N), sd over N - 1; None where N < 2.

    An infinite value (the PSNR of equal images) makes the mean infinite and leaves it without an error.
    """
    values = values.double()
    mean = values.mean().item()
    known = len(values) > 1 and math.isfinite(mean)
    return mean, values.std().item() / len(values) ** 0.5 if known else None


def _ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """SSIM [N] of float64 images [N, C, H, W] in [0, 1]."""
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=a.device) - WINDOW // 2
    taps = (-0.5 * (offsets / SIGMA).square()).exp()
    taps = taps / taps.sum()
    maps = torch.stack([a, b, a * a, b * b, a * b], dim=1).flatten(0, 2).unsqueeze(1)
    local = F.conv2d(F.conv2d(maps, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    mean_a, mean_b, square_a, square_b, product = local.view(len(a), 5, a.shape[1], *local.shape[-2:]).unbind(
        dim=1
    )
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(1).mean(dim=1)


def _distance(detector: str | Detector | Distance, device: torch.device | str) -> Distance:
    if isinstance(detector, str):
        detector = get_detector(detector, device)
    return getattr(detector, "distance", detector)


def _in_parts(function: Distance, images_a: torch.Tensor, images_b: torch.Tensor) -> torch.Tensor:
    """function(a, b) [n] of parts small enough for memory, joined to [N]."""
    size = min(max(PART // math.prod(images_a.shape[-2:]), 1), BATCH)
    pairs = zip(images_a.split(size), images_b.split(size), strict=True)
    return torch.cat([function(a, b) for a, b in pairs])


def _to_signed(images: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    """float32 in [-1, 1]; images that are there already keep their bits."""
    if tuple(value_range) == (-1, 1):
        return images.float()
    low, high = value_range
    return (images.float() - low) * (PEAK / (high - low)) - 1


def _check_pair(
    images_a: torch.Tensor, images_b: torch.Tensor, value_range: tuple[float, float], *, narrow_ok: bool
) -> None:
    if tuple(value_range) not in RANGES:
        raise ValueError(f"value_range is {value_range}, not one of {', '.join(map(str, RANGES))}")
    a, b = images_a, images_b
    is_image = a.ndim == 4 and a.shape[1] in (1, 3) and (a.is_floating_point() or a.dtype == torch.uint8)
    if not is_image or b.shape != a.shape or b.dtype != a.dtype or len(a) == 0:
        raise ValueError(
            f"pairs are float or uint8 images [N, 1 or 3, H, W] of one shape and type, N >= 1, got "
            f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        )
    if a.dtype == torch.uint8:
        if tuple(value_range) != (0, 255):
            raise ValueError(f"uint8 images go with value_range=(0, 255), not {value_range}")
        return
    for images in (a, b):
        _check_range(images, value_range, narrow_ok=narrow_ok)


def _check_range(images: torch.Tensor, value_range: tuple[float, float], *, narrow_ok: bool) -> None:
    low, high = images.min().item(), images.max().item()
    found, stated = f"images lie in [{low:.4g}, {high:.4g}]", f"[{value_range[0]}, {value_range[1]}]"
    slack = RANGE_TOLERANCE * (value_range[1] - value_range[0]) / 2
    if not (low >= value_range[0] - slack and high <= value_range[1] + slack):
        raise ValueError(f"{found}, expected {stated}; state their value_range, one of {RANGES}")
    narrow = {(-1, 1): low >= SEEN_BELOW, (0, 255): high <= SEEN_ABOVE}.get(tuple(value_range), False)
    if narrow and not narrow_ok:
        raise ValueError(
            f"{found}, expected {stated}: this looks like [0, 1]; state value_range=(0, 1), or "
            f"narrow_ok=True if they really are in {stated}"
        )
