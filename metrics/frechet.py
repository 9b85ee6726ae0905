"""FID: Fréchet distance between Gaussians fitted to the features of generated and of real images.

Heusel et al. 2017, arXiv:1706.08500, eq. 6; equals torch-fidelity and clean-fid on the same features. Those
take the square root of a product of covariances, which is slow and can turn complex; here the trace of that
root is a sum of singular values in float64 and cannot fail. Standard error: first-order (delta method)
influence of every image.
"""

from dataclasses import dataclass

import torch

from metrics.registry import (
    DIGIT_DATASETS,
    FeatureNeed,
    MetricInputs,
    MetricValue,
    Register,
    against_reals,
    register_metric,
)

CHUNK = 8192


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean [D], covariance [D, D] (over n - 1) and a factor F [D, r] of it, F F' = cov, of n feature rows."""

    n: int
    mean: torch.Tensor
    cov: torch.Tensor
    factor: torch.Tensor


def compute_statistics(features: torch.Tensor) -> FeatureStatistics:
    """Statistics of features [N, D], in float64. Raises ValueError where N < 2 or a value is not finite."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"FID needs features [N, D] with N >= 2, got {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold values that are not finite")
    n, width = features.shape
    mean = sum(part.double().sum(dim=0) for part in features.split(CHUNK)) / n
    cov = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for part in features.split(CHUNK):
        centred = part.double() - mean
        cov.addmm_(centred.T, centred)
    cov /= n - 1
    factor = factor_covariance(cov) if n > width else (features.double() - mean).T / (n - 1) ** 0.5
    return FeatureStatistics(n, mean, cov, factor)


def factor_covariance(cov: torch.Tensor) -> torch.Tensor:
    """A factor F [D, D] with F F' = cov: Cholesky's, or the symmetric root where cov is singular."""
    factor, info = torch.linalg.cholesky_ex(cov)
    return factor if info.item() == 0 else _symmetric_root(cov)


def compute_fid(features_gen: torch.Tensor, features_real: torch.Tensor | FeatureStatistics) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets. Lower is better; 0 for equal sets.

    Both are [N, D] float tensors of one detector; covariances divide by N - 1. Statistics of the reals, made
    once with `compute_statistics`, may stand for them. With fewer images than features the centred images are
    the factor, so that a singular covariance costs no accuracy.
    Raises ValueError where N < 2, the widths differ or a value is not finite.
    """
    real = (
        features_real if isinstance(features_real, FeatureStatistics) else compute_statistics(features_real)
    )
    return compute_fid_from_statistics(compute_statistics(features_gen), real)


def compute_fid_from_statistics(gen: FeatureStatistics, real: FeatureStatistics) -> float:
    """Fréchet distance of two Gaussians, |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). Lower is better.

    With S1 = F F' and S2 = H H' the last trace is the sum of the singular values of F' H. Rounding may leave
    equal Gaussians a little below 0; that is returned as 0. Raises ValueError where the widths differ.
    """
    _check_widths(gen, real)
    root = torch.linalg.svdvals(gen.factor.T @ real.factor).sum()
    shift = (gen.mean - real.mean).square().sum()
    return max((shift + gen.cov.trace() + real.cov.trace() - 2 * root).item(), 0.0)


def compute_fid_influence(features_gen: torch.Tensor, real: FeatureStatistics) -> torch.Tensor:
    """How much each generated image moves the FID against fixed reals, float64 [N]: positive raises it.

    The first-order influence 2 (m - m_r)'(x - m) + (x - m)'(I - T)(x - m), with R = S_r^(1/2) and
    T = R (R S R)^(-1/2) R, centred. On directions without variance the inverse root is a pseudo-inverse.
    """
    gen = compute_statistics(features_gen)
    _check_widths(gen, real)
    root = _symmetric_root(real.cov)
    values, vectors = torch.linalg.eigh(root @ gen.cov @ root)
    kept = values > values.max() * len(values) * torch.finfo(torch.float64).eps
    inverse_root = (vectors[:, kept] / values[kept].sqrt()) @ vectors[:, kept].T
    transport = root @ inverse_root @ root
    slope = torch.eye(len(transport), dtype=torch.float64, device=transport.device) - transport
    parts = []
    for part in features_gen.split(CHUNK):
        centred = part.double() - gen.mean
        parts.append(2 * centred @ (gen.mean - real.mean) + ((centred @ slope) * centred).sum(dim=1))
    influence = torch.cat(parts)
    return influence - influence.mean()


def compute_fid_stderr(features_gen: torch.Tensor, real: FeatureStatistics) -> float | None:
    """Standard error of the FID over draws of the generated images, the reals held fixed; None where N <= D.

    The delta method: sd(influence) / sqrt(N). Covers sampling noise, not the bias of a small N.
    """
    if len(features_gen) <= features_gen.shape[1]:
        return None
    return compute_fid_influence(features_gen, real).std().item() / len(features_gen) ** 0.5


def _symmetric_root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _check_widths(gen: FeatureStatistics, real: FeatureStatistics) -> None:
    if len(gen.mean) != len(real.mean):
        widths = f"generated features are {len(gen.mean)} wide and real ones {len(real.mean)}"
        raise ValueError(f"{widths}: not from one detector")


def _fid(needs: tuple[FeatureNeed, ...], *, datasets: tuple[str, ...] | None = None) -> Register:
    return register_metric(
        family="fid",
        higher_is_better=False,
        citation="Heusel et al. 2017, arXiv:1706.08500",
        reference="torch-fidelity 0.4.0 and clean-fid 0.1.35 on the same features",
        needs=needs,
        settings={"covariance": "N - 1", "dtype": "float64"},
        datasets=datasets,
    )


def _value(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    features_gen, features_real = (inputs.features(need) for need in needs)
    real = compute_statistics(features_real)
    return MetricValue(
        compute_fid(features_gen, real),
        stderr=compute_fid_stderr(features_gen, real),
        n_generated=len(features_gen),
        n_real=real.n,
    )


FULL_DIGITS = against_reals("digits", split="train")
FULL_EFFICIENTNET = against_reals("efficientnet_lite0", split="train")
TEST_EFFICIENTNET = against_reals("efficientnet_lite0", split="test")
FULL_ALEX = against_reals("stlpips_alex", split="train")


@_fid(FULL_DIGITS, datasets=DIGIT_DATASETS)
def fid10k_full_digits(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on features of the digit classifier."""
    return _value(inputs, FULL_DIGITS)


@_fid(FULL_EFFICIENTNET)
def fid10k_full_efficientnet_lite0(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on EfficientNet-Lite0 features."""
    return _value(inputs, FULL_EFFICIENTNET)


@_fid(TEST_EFFICIENTNET)
def fid10k_test_efficientnet_lite0(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to the held-out test images, on EfficientNet-Lite0 features."""
    return _value(inputs, TEST_EFFICIENTNET)


@_fid(FULL_ALEX)
def fid10k_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance to all training images, on shift-tolerant AlexNet features."""
    return _value(inputs, FULL_ALEX)
