"""Vendi score: the effective number of different images in a set, without a reference.

Friedman & Dieng 2023, arXiv:2210.02410: exp of the entropy of the eigenvalues of K / N, K the cosine
similarity of features; equals the vendi-score package. Says how varied a set is, not how good: noise that a
detector spreads over its features scores high.
"""

import torch

CHUNK = 2048


def compute_vendi_score(features: torch.Tensor) -> float:
    """Vendi score of features [N, D] with the cosine kernel: from 1 (all alike) to min(N, D).

    Exact, in float64, through the smaller of the N x N and D x D Gram matrices: they share eigenvalues.
    Raises ValueError where the set is empty, a value is not finite or a row is 0.
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"the Vendi score needs features [N, D], got {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold values that are not finite")
    n, width = features.shape
    norms = features.double().norm(dim=1, keepdim=True)
    if not (norms > 0).all():
        raise ValueError(f"{int((norms == 0).sum())} rows of features are 0 and have no direction")
    if n <= width:
        rows = features.double() / norms
        gram = rows @ rows.T
    else:
        gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for part, scale in zip(features.split(CHUNK), norms.split(CHUNK), strict=True):
            rows = part.double() / scale
            gram.addmm_(rows.T, rows)
    shares = torch.linalg.eigvalsh(gram / n).clamp(min=0)
    return torch.special.entr(shares).sum().exp().item()
