"""W-gap: how far the w of a StylEx encoder lie from those of its mapping network.

One generator is trained on two distributions of w. The reproductions suspect that they drift apart (Vleuten
et al. 2022, the notes on W from two networks) and print no number. The class part, the same in both, is left
out. Both distances are made on w divided by the standard deviation that the mapping's w have in each
dimension, so that a network that scales its w gains nothing.
"""

import torch

from fact_metrics.engines.frechet import compute_fid_from_statistics, compute_statistics
from fact_metrics.engines.kid import compute_kid

SMALLEST_STD = 1e-6  # a dimension that the mapping does not vary is not blown up by more than this


def standardise(w_encoder: torch.Tensor, w_mapping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sets [N, D] and [M, D] less the mapping's mean, over its standard deviation per dimension.

    float64. Raises ValueError where the widths differ or a set has fewer than two rows.
    """
    if w_encoder.ndim != 2 or w_encoder.shape[1:] != w_mapping.shape[1:] or len(w_mapping) < 2:
        raise ValueError(f"w are two sets [N, D], got {list(w_encoder.shape)} and {list(w_mapping.shape)}")
    encoder, mapping = w_encoder.double(), w_mapping.double()
    mean, std = mapping.mean(dim=0), mapping.std(dim=0).clamp(min=SMALLEST_STD)
    return (encoder - mean) / std, (mapping - mean) / std


def compute_w_gap_frechet(w_encoder: torch.Tensor, w_mapping: torch.Tensor) -> float:
    """Fréchet distance of standardised w per dimension. Lower is closer; 0 for equal sets."""
    encoder, mapping = standardise(w_encoder, w_mapping)
    distance = compute_fid_from_statistics(compute_statistics(encoder), compute_statistics(mapping))
    return distance / encoder.shape[1]


def compute_w_gap_kernel(w_encoder: torch.Tensor, w_mapping: torch.Tensor):
    """Unbiased MMD^2 of standardised w with KID's kernel (x.y / D + 1)^3, and its error."""
    return compute_kid(*standardise(w_encoder, w_mapping), subsets=0)


def describe_dimensions(w_encoder: torch.Tensor, w_mapping: torch.Tensor) -> dict[str, list[float]]:
    """Per dimension, in the mapping's standard deviations: the encoder's mean and standard deviation."""
    encoder, _ = standardise(w_encoder, w_mapping)
    return {"mean": encoder.mean(dim=0).tolist(), "std": encoder.std(dim=0).tolist()}
