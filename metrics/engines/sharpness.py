"""Sharpness: spectral power in high frequencies, of generated images against that of real ones.

Blurred images have too little and noisy ones too much, so both sides count: |log2 ratio|, 0 where the shares
agree. Spectral shares as a sign of generated images: Durall et al. 2020, arXiv:2003.01826.
"""

import math

import torch

from fact_metrics.engines.conventions import SMALLEST_SHARE


def compute_sharpness(shares_gen: torch.Tensor, shares_real: torch.Tensor) -> float:
    """|log2| of the ratio of mean high-frequency shares, in octaves. Lower is better; 0 if equal; symmetric.

    Both are [N, 1] shares of the `spectrum` detector, in [0, 1]. A mean under 1e-6 (blank images) counts as
    1e-6. Raises ValueError on an empty set or a share outside [0, 1].
    """
    return abs(math.log2(mean_share(shares_gen) / mean_share(shares_real)))


def compute_sharpness_stderr(shares_gen: torch.Tensor) -> float | None:
    """Standard error over draws of generated images, reals held fixed: sd / (sqrt(N) mean ln 2)."""
    if len(shares_gen) < 2:
        return None
    spread = shares_gen.double().std().item() / len(shares_gen) ** 0.5
    return spread / (mean_share(shares_gen) * math.log(2))


def mean_share(shares: torch.Tensor) -> float:
    """Mean of shares [N, 1], at least 1e-6. Raises ValueError on an empty set or a share outside [0, 1]."""
    if len(shares) == 0 or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"shares lie in [0, 1] and number at least one, got {list(shares.shape)}")
    return max(shares.double().mean().item(), SMALLEST_SHARE)
