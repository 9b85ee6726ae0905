"""Parity of the Fréchet distance, KID and the inception score with torch-fidelity, clean-fid and scipy."""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg
import torch

from benchmarks.parity import Parity
from fact_eval.checks.peers import (
    fid_clean_fid,
    fid_torch_fidelity,
    inception_score_torch_fidelity,
    kid_clean_fid,
    kid_scikit_learn,
    kid_torch_fidelity,
    moments,
)
from fact_metrics.engines.frechet import compute_fid
from fact_metrics.engines.inception_score import compute_inception_score
from fact_metrics.engines.kid import compute_kid

TORCH_FIDELITY, CLEAN_FID, SCIPY = "torch-fidelity 0.4.0", "clean-fid 0.1.35", "scipy sqrtm"
EXACT = "QR and SVD of the images, numpy"


def features(n: int, width: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Correlated normal features [N, D], float64; one mixing matrix for every seed."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    noise = torch.randn(n, width, generator=rng, dtype=torch.float64)
    return scale * noise @ mixing / width**0.5 + shift


def fid_scipy(gen: torch.Tensor, real: torch.Tensor) -> float:
    """The formula as printed, by scipy alone."""
    (mean_gen, cov_gen), (mean_real, cov_real) = moments(gen), moments(real)
    root = np.real(scipy.linalg.sqrtm(cov_gen @ cov_real))
    return float(((mean_gen - mean_real) ** 2).sum() + np.trace(cov_gen + cov_real - 2 * root))


def fid_nvidia(gen: torch.Tensor, real: torch.Tensor) -> float:
    """The same with covariances over N."""
    covs = [np.cov(rows.numpy(), rowvar=False, ddof=0) for rows in (gen, real)]
    shift = (gen.mean(dim=0) - real.mean(dim=0)).square().sum().item()
    return float(shift + np.trace(sum(covs) - 2 * np.real(scipy.linalg.sqrtm(covs[0] @ covs[1]))))


def fid_qr(gen: torch.Tensor, real: torch.Tensor) -> float:
    """Exact for any rank: no covariance is formed, so that no small number is squared and rooted again.

    With centred rows X = Q R the factor of a covariance is R', and the trace of the root the sum of the
    singular values of R1 R2' (numpy's LAPACK, not torch's).
    """
    means = [rows.numpy().mean(axis=0) for rows in (gen, real)]
    factors = [
        np.linalg.qr(rows.numpy() - mean, mode="r") / (len(rows) - 1) ** 0.5
        for rows, mean in zip((gen, real), means, strict=True)
    ]
    root = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum((factor**2).sum() for factor in factors)
    return float(((means[0] - means[1]) ** 2).sum() + spread - 2 * root)


def _fid_row(
    peer: str,
    theirs: Callable[[torch.Tensor, torch.Tensor], float],
    *,
    n: int,
    width: int,
    correction: int = 1,
    decay: float = 0.0,
) -> Parity:
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -decay
    gen = features(n, width, seed=0, shift=0.2) * spectrum
    real = features(n + 50, width, seed=1, scale=1.2) * spectrum
    divisor = "N - 1" if correction else "N"
    scales = f", scales from 1 to {spectrum[-1]:.0e}" if decay else ""
    return Parity(
        "FID",
        f"n = {n}, d = {width}, covariance over {divisor}{scales}",
        compute_fid(gen, real, correction=correction),
        peer,
        theirs(gen, real),
        1e-6,
    )


def _kid_row(kernel: str, dtype: torch.dtype) -> Parity:
    gen, real = features(800, 64, seed=2, shift=0.2).to(dtype), features(900, 64, seed=3).to(dtype)
    ours = compute_kid(gen, real, kernel=kernel, subsets=50, subset_size=400)
    theirs, _ = kid_torch_fidelity(gen, real, subsets=50, size=400, kernel=kernel)
    return Parity(
        "KID",
        f"{kernel}, 50 subsets of 400, {str(dtype).removeprefix('torch.')}",
        ours.subset_mean,
        TORCH_FIDELITY,
        theirs,
        1e-6,
    )


def _kid_of_all_images() -> Parity:
    """One subset that holds everything has no randomness left, so that clean-fid's KID can be compared."""
    gen, real = features(500, 64, seed=2, shift=0.2), features(500, 64, seed=3)
    theirs = kid_clean_fid(gen, real)
    ours = compute_kid(gen, real, subsets=0).value
    return Parity("KID", "polynomial, all 500 images", ours, CLEAN_FID, theirs, 1e-6)


def _kid_of_unequal_sets() -> Parity:
    gen, real = features(500, 64, seed=2, shift=0.2), features(700, 64, seed=3)
    theirs, _ = kid_scikit_learn(gen, real)
    ours = compute_kid(gen, real, subsets=0).value
    return Parity("KID", "polynomial, all of 500 and 700 images", ours, "scikit-learn", theirs, 1e-6)


def _inception_score(*, shuffle: bool) -> Parity:
    logits = 4 * features(1000, 32, seed=4)
    theirs = inception_score_torch_fidelity(logits, logits=True, splits=10, shuffle=shuffle)
    ours = compute_inception_score(logits, logits=True, seed=2020 if shuffle else None).value
    setting = "10 splits, shuffled by 2020" if shuffle else "10 splits, in order"
    return Parity("IS", setting, ours, TORCH_FIDELITY, theirs, 1e-6)


ROWS = (
    partial(_fid_row, TORCH_FIDELITY, fid_torch_fidelity, n=600, width=128),
    partial(_fid_row, CLEAN_FID, fid_clean_fid, n=600, width=128),
    partial(_fid_row, SCIPY, fid_scipy, n=600, width=128),
    partial(_fid_row, "NVIDIA's formula, scipy sqrtm", fid_nvidia, n=600, width=128, correction=0),
    partial(_fid_row, TORCH_FIDELITY, fid_torch_fidelity, n=50, width=108),
    partial(_fid_row, EXACT, fid_qr, n=50, width=108),
    partial(_fid_row, EXACT, fid_qr, n=600, width=128, decay=3),
    partial(_fid_row, EXACT, fid_qr, n=50, width=108, decay=3),
    partial(_kid_row, "polynomial", torch.float64),
    partial(_kid_row, "rbf", torch.float64),
    partial(_kid_row, "polynomial", torch.float32),
    _kid_of_all_images,
    _kid_of_unequal_sets,
    partial(_inception_score, shuffle=True),
    partial(_inception_score, shuffle=False),
)
