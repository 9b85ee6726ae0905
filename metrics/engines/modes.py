"""Modes of stacked digits: which of the 1,000 classes a sample has, and how evenly.

The protocol is PacGAN's (Lin et al. 2018, arXiv:1712.04086): 26,000 images are drawn, a classifier reads each
channel, and the three digits are the mode of the image.
"""

import math

import numpy as np
import torch

from fact_metrics.engines.conventions import BOOTSTRAPS, LEGIBLE, MODES


def count_modes(probabilities: torch.Tensor) -> torch.Tensor:
    """Images of each mode, int64 [1000], of class probabilities [N, 30] of three channels.

    Mode 100 r + 10 g + b has the likeliest digits r, g and b. Raises ValueError for other shapes.
    """
    digits = _by_channel(probabilities).argmax(dim=2)
    return (digits[:, 0] * 100 + digits[:, 1] * 10 + digits[:, 2]).bincount(minlength=MODES)


def compute_modes(probabilities: torch.Tensor) -> float:
    """Number of modes with at least one image of [N, 30]. Higher is better; 1 to 1000."""
    return float((count_modes(probabilities) > 0).sum())


def compute_mode_kl(probabilities: torch.Tensor) -> float:
    """KL divergence of the modes of [N, 30] to the uniform distribution, in nats.

    Lower is better; 0 if even, log 1000 = 6.91 for one mode. A perfect generator has 999 / 2N on average,
    0.019 at 26,000 images.
    """
    return _kl_to_uniform(count_modes(probabilities).numpy()).item()


def compute_channels_legible(probabilities: torch.Tensor) -> float:
    """Share of images with a class at 0.9 or more in each of the three channels of [N, 30]."""
    return (_by_channel(probabilities).amax(dim=2) >= LEGIBLE).all(dim=1).double().mean().item()


def bootstrap_modes(probabilities: torch.Tensor) -> tuple[float, float]:
    """Standard errors of the number of modes and of the KL divergence, by a seeded bootstrap over images.

    Resampling adds as much noise as sampling did. Where modes are even, the KL measures noise alone, and its
    error is up to sqrt(3) times too large.
    """
    counts = count_modes(probabilities).numpy()
    total = counts.sum()
    drawn = np.random.default_rng(0).multinomial(total, counts / total, size=BOOTSTRAPS)
    return (drawn > 0).sum(axis=1).std(ddof=1).item(), _kl_to_uniform(drawn).std(ddof=1).item()


def _kl_to_uniform(counts: np.ndarray) -> np.ndarray:
    """KL of counts [..., K] to even ones."""
    shares = counts / counts.sum(axis=-1, keepdims=True)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return (shares * (logs + math.log(counts.shape[-1]))).sum(axis=-1)


def _by_channel(probabilities: torch.Tensor) -> torch.Tensor:
    """[N, 3, 10]. Raises ValueError unless each channel's row is of probabilities."""
    if probabilities.ndim != 2 or len(probabilities) == 0 or probabilities.shape[1] != 30:
        raise ValueError(f"class probabilities of channels are [N, 30], got {list(probabilities.shape)}")
    rows = probabilities.view(-1, 3, 10)
    if not ((rows.double().sum(dim=2) - 1).abs() < 1e-3).all():
        raise ValueError("class probabilities of a channel sum to 1")
    return rows
