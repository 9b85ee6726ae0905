"""Distances of reconstructions and their images, one value per pair."""

import torch.nn.functional as F
from torch import Tensor


def class_divergence(logits_real: Tensor, logits_generated: Tensor) -> Tensor:
    """KL(C(x) || C(x')) of the softmax of two sets of logits [N, K], one value per pair."""
    log_p, log_q = F.log_softmax(logits_real, dim=1), F.log_softmax(logits_generated, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


SMALLEST_RANGE = 2 / 255  # one step of 8 bits in [-1, 1]: less than that is no contrast


def stretched(images: Tensor) -> Tensor:
    """Images [N, C, H, W] moved and scaled, each by itself, so that they span [-1, 1]; a flat one is -1."""
    low, high = images.amin(dim=[1, 2, 3], keepdim=True), images.amax(dim=[1, 2, 3], keepdim=True)
    return 2 * (images - low) / (high - low).clamp(min=SMALLEST_RANGE) - 1


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of every pair of rows of [N, ...]: [N]."""
    return (a - b).abs().flatten(1).mean(dim=1)
