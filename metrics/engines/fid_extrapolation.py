"""FID at infinitely many generated images: the bias of a finite sample taken out.

FID-infinity: Chong & Forsyth 2020, arXiv:1911.07023 (a line through FID against 1/N); and Richardson's step
2 FID(N) - FID(N/2), which needs three distances instead of fifteen. The reference implementations draw their
subsets without a seed; here the seed is an argument. The reals are held fixed.
"""

import math
from dataclasses import dataclass

import torch

from fact_metrics.engines.conventions import INFINITY_SIZES, INFINITY_SMALLEST
from fact_metrics.engines.fid_error import MINIMUM, compute_fid_influence, jackknife_variance
from fact_metrics.engines.frechet import (
    FeatureStatistics,
    as_statistics,
    compute_fid_from_statistics,
    compute_statistics,
)


@dataclass(frozen=True)
class FidCurve:
    """FID of seeded subsets of the sizes, and the line value + slope / N through them; value: N = infinity.

    `stderr` is over new draws of the generated images and of the subsets, None under 10 images.
    """

    value: float
    stderr: float | None
    slope: float
    sizes: tuple[int, ...]
    fids: tuple[float, ...]


def compute_fid_infinity(
    features_gen: torch.Tensor,
    features_real: torch.Tensor | FeatureStatistics,
    *,
    seed: int = 0,
    sizes: int = INFINITY_SIZES,
    smallest: int = INFINITY_SMALLEST,
) -> FidCurve:
    """FID extrapolated to N = infinity by least squares on 1/N over equally spaced subset sizes.

    Sizes run from `smallest`, or half of N where that is less, to N; each subset is drawn without replacement
    and by itself. Lower is better; may come out a little below 0. Raises ValueError where N < 4, there are
    fewer than two sizes, and as `compute_fid`.
    """
    real = as_statistics(features_real)
    n = len(features_gen)
    counts = torch.linspace(min(smallest, n // 2), n, sizes, dtype=torch.float64).round().long().tolist()
    if n < 4 or len(set(counts)) < 2:
        raise ValueError(f"FID-infinity needs two subset sizes of two images or more, got {counts} of {n}")
    rng = torch.Generator().manual_seed(seed)
    fids = [_fid(features_gen[torch.randperm(n, generator=rng)[:count]], real) for count in counts]
    x = 1 / torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(fids, dtype=torch.float64)
    slopes = (x - x.mean()) / (x - x.mean()).square().sum()
    weights = 1 / len(x) - x.mean() * slopes  # the intercept is a weighted sum of the distances
    stderr = None
    if n >= MINIMUM:
        # Subsets share images by chance alone: each adds its own variance beyond that of all N.
        own = n * (weights.square() * (x - 1 / n)).sum().item()
        stderr = math.sqrt(jackknife_variance(compute_fid_influence(features_gen, real)) * (1 + own))
    return FidCurve((weights @ y).item(), stderr, (slopes @ y).item(), tuple(counts), tuple(fids))


def compute_fid_extrapolated(
    features_gen: torch.Tensor, features_real: torch.Tensor | FeatureStatistics, *, seed: int = 0
) -> FidCurve:
    """2 FID(N) - FID(N/2), the latter averaged over two disjoint halves drawn by the seed. Lower is better.

    Its error is the plain jackknife's, and smaller than that of FID-infinity. An odd N leaves one image out
    of the halves. May come out a little below 0. Raises ValueError where N < 4, and as `compute_fid`.
    """
    real = as_statistics(features_real)
    n = len(features_gen)
    if n < 4:
        raise ValueError(f"two halves of two images need N >= 4, got {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    halves = [_fid(features_gen[order[start : start + n // 2]], real) for start in (0, n // 2)]
    whole, half = _fid(features_gen, real), sum(halves) / 2
    stderr = None
    if n >= MINIMUM:
        stderr = math.sqrt(jackknife_variance(compute_fid_influence(features_gen, real)))
    return FidCurve(2 * whole - half, stderr, n * (half - whole), (n // 2, n // 2, n), (*halves, whole))


def _fid(features: torch.Tensor, real: FeatureStatistics) -> float:
    return compute_fid_from_statistics(
        compute_statistics(features, correction=real.correction), real, clamp=False
    )
