"""Distances of reconstructions and their images, one value per pair."""

import torch.nn.functional as F
from torch import Tensor


def class_divergence(logits_real: Tensor, logits_generated: Tensor) -> Tensor:
    """KL(C(x) || C(x')) of the softmax of two sets of logits [N, K], one value per pair."""
    log_p, log_q = F.log_softmax(logits_real, dim=1), F.log_softmax(logits_generated, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of every pair of rows of [N, ...]: [N]."""
    return (a - b).abs().flatten(1).mean(dim=1)
