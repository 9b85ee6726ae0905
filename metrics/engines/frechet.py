"""Fréchet distance between Gaussians fitted to the features of generated and of real images.

Heusel et al. 2017, arXiv:1706.08500, eq. 6; equals torch-fidelity and clean-fid on the same features. Those
take the square root of a nonsymmetric product of covariances, which is slow and can turn complex. Here the
trace of that root is a sum of roots of eigenvalues of a symmetric product, or of singular values where that
would lose digits, in float64: it cannot fail. sFID (Nash et al. 2021, arXiv:2103.03841) is the same distance
on spatial features. Registered protocols: fid.py; standard errors: fid_error.py.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

ROWS = 1024
BLOCK = 256
# Rounding allowed to cost the eigenvalue route this much of the distance; past it the singular values are
# taken, whose rounding is of the order of epsilon.
PRECISION = 1e-7
EPSILON = torch.finfo(torch.float64).eps
TINY = 1e-300


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean [D] and covariance [D, D], over n - correction, of n feature rows, float64.

    `rows` [n, D] is kept where n <= D and the covariance therefore singular: rows' rows = cov.
    """

    n: int
    mean: torch.Tensor
    cov: torch.Tensor
    rows: torch.Tensor | None = None
    correction: int = 1

    @cached_property
    def factor(self) -> torch.Tensor:
        """F with F F' = cov: the rows [D, n], Cholesky's [D, D], or the symmetric root of a singular cov."""
        if self.rows is not None:
            return self.rows.T
        factor, info = torch.linalg.cholesky_ex(self.cov)
        if info.item() == 0:
            return factor
        values, vectors = torch.linalg.eigh(self.cov)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def compute_statistics(features: torch.Tensor, *, correction: int = 1) -> FeatureStatistics:
    """Statistics of features [N, D] in float64; memory beyond the features is O(D^2).

    The covariance divides by N - correction: 1 as in numpy.cov and most peers, 0 as in NVIDIA's protocol.
    Raises ValueError where N < 2 or a value is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"FID needs features [N, D] with N >= 2, got {list(features.shape)}")
    n, width = features.shape
    mean = sum(part.double().sum(dim=0) for part in features.split(ROWS)) / n
    if not torch.isfinite(mean).all():
        raise ValueError("features hold values that are not finite")
    cov = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for part in features.split(ROWS):
        centred = part.double() - mean
        for start in range(0, width, BLOCK):  # only blocks on and left of the diagonal: the rest mirrors them
            stop = start + BLOCK
            cov[start:stop, :stop].addmm_(centred[:, start:stop].T, centred[:, :stop])
    cov = (cov.tril() + cov.tril(-1).T) / (n - correction)
    rows = (features.double() - mean) / (n - correction) ** 0.5 if n <= width else None
    return FeatureStatistics(n, mean, cov, rows, correction)


def compute_fid(
    features_gen: torch.Tensor, features_real: torch.Tensor | FeatureStatistics, *, correction: int = 1
) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets. Lower is better; 0 for equal sets.

    Both are [N, D] float tensors of one detector; covariances divide by N - correction. Statistics of the
    reals, made once with `compute_statistics`, may stand for them.
    Raises ValueError where N < 2, the widths or corrections differ, or a value is not finite.
    """
    real = as_statistics(features_real, correction=correction)
    return compute_fid_from_statistics(compute_statistics(features_gen, correction=correction), real)


def compute_fid_from_statistics(
    gen: FeatureStatistics, real: FeatureStatistics, *, clamp: bool = True
) -> float:
    """Fréchet distance of two Gaussians, |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). Lower is better.

    Rounding may leave equal Gaussians a little below 0; that is returned as 0 unless `clamp` is off.
    Raises ValueError where the widths or corrections differ.
    """
    check_comparable(gen, real)
    apart = ((gen.mean - real.mean).square().sum() + gen.cov.trace() + real.cov.trace()).item()
    columns = varying_features(gen, real)
    gen, real = select_features(gen, columns), select_features(real, columns)
    distance = _distance_by_eigenvalues(gen, real, apart)
    if distance is None:
        root = torch.linalg.svdvals(gen.factor.T @ real.factor).sum().item()
        distance = apart - 2 * root
    return max(distance, 0.0) if clamp else distance


def flatten_spatial(features: torch.Tensor, *, channels: int = 7) -> torch.Tensor:
    """Spatial features [N, C, H, W] as the [N, channels H W] that sFID compares: the first channels only.

    7 channels of Inception's 17 x 17 mixed_6 (2,023 values) in Nash et al. 2021 and guided-diffusion.
    Raises ValueError where there are fewer channels.
    """
    if features.ndim != 4 or features.shape[1] < channels:
        raise ValueError(f"sFID needs features [N, C, H, W] with C >= {channels}, got {list(features.shape)}")
    return features[:, :channels].flatten(1)


def varying_features(gen: FeatureStatistics, real: FeatureStatistics) -> torch.Tensor:
    """Which features both sets vary, bool [D]: dead ReLUs and the like add nothing to (S1 S2)^(1/2).

    All of them where there is none, so that nothing is ever empty.
    """
    varies = (gen.cov.diagonal() > 0) & (real.cov.diagonal() > 0)
    return varies if varies.any() else ~varies


def select_features(statistics: FeatureStatistics, columns: torch.Tensor) -> FeatureStatistics:
    """The statistics of some features alone; columns are bool [D]."""
    if columns.all():
        return statistics
    mean, cov = statistics.mean[columns], statistics.cov[columns][:, columns]
    rows = None
    if statistics.rows is not None and statistics.n <= len(mean):
        rows = statistics.rows[:, columns]
    return FeatureStatistics(statistics.n, mean, cov, rows, statistics.correction)


def move_statistics(statistics: FeatureStatistics, device: torch.device | str) -> FeatureStatistics:
    """The statistics on a device."""
    rows = None if statistics.rows is None else statistics.rows.to(device)
    mean, cov = statistics.mean.to(device), statistics.cov.to(device)
    return FeatureStatistics(statistics.n, mean, cov, rows, statistics.correction)


def as_statistics(features: torch.Tensor | FeatureStatistics, *, correction: int = 1) -> FeatureStatistics:
    """Statistics as they are, or those of features [N, D]."""
    if isinstance(features, FeatureStatistics):
        return features
    return compute_statistics(features, correction=correction)


def check_comparable(gen: FeatureStatistics, real: FeatureStatistics) -> None:
    """Raise ValueError where two statistics are of different detectors or divide differently."""
    if len(gen.mean) != len(real.mean):
        widths = f"generated features are {len(gen.mean)} wide and real ones {len(real.mean)}"
        raise ValueError(f"{widths}: not from one detector")
    if gen.correction != real.correction:
        raise ValueError(
            f"covariances divide by N - {gen.correction} and by N - {real.correction}: not one protocol"
        )


def _distance_by_eigenvalues(gen: FeatureStatistics, real: FeatureStatistics, apart: float) -> float | None:
    """A third of the work of singular values: eigenvalues of F' S2 F, S1 = F F'. None where inexact."""
    if gen.rows is not None or real.rows is not None:
        return None
    values = torch.linalg.eigvalsh(_congruence(gen.factor, real.cov)).clamp(min=0)
    distance = apart - 2 * values.sqrt().sum().item()
    return distance if 2 * rounding_of_roots(values) <= PRECISION * distance else None


def rounding_of_roots(values: torch.Tensor) -> float:
    """How far the sum of the roots of computed eigenvalues (ascending, at least 0) may be off by rounding.

    Each is known to about epsilon times the largest. To first order that moves a root by up to `moved`, of
    either sign independently, so that squares add up; what is left, the curvature of the root and values
    that are all noise, has one sign and adds up by itself. Over 60 spectra with up to 1,000 directions the
    error was at most half of this (`test_the_rounding_of_roots_is_not_underestimated`).
    """
    noise = EPSILON * values[-1].clamp(min=TINY)
    spread = values.sqrt() + noise.sqrt()
    moved = noise / spread
    return (2 * moved.square().sum().sqrt() + (moved.square() / spread).sum()).item()


def _congruence(factor: torch.Tensor, cov: torch.Tensor) -> torch.Tensor:
    """F' S F, of which the lower triangle alone is filled in, the one that eigvalsh reads.

    Blocks above the diagonal of a lower triangular F are 0 and left out: a quarter of the work.
    """
    if factor.triu(1).any():
        return factor.T @ cov @ factor
    product = torch.zeros_like(cov)
    for start in range(0, len(cov), BLOCK):
        columns = slice(start, start + BLOCK)
        right = cov[start:, start:] @ factor[start:, columns]
        for row in range(start, len(cov), BLOCK):
            product[row : row + BLOCK, columns] = factor[row:, row : row + BLOCK].T @ right[row - start :]
    return product
