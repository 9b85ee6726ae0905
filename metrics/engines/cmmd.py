"""CMMD: maximum mean discrepancy between CLIP embeddings of generated and of real images, times 1000.

Jayasumana et al. 2024, arXiv:2401.09603: L2-normalised embeddings, RBF kernel with sigma = 10, the biased
estimate (pairs of a row with itself count), times 1000. Equals google-research's and sayakpaul/cmmd-pytorch
on the same embeddings, which hold whole kernel matrices; here blocks.
"""

import torch

from fact_metrics.engines.kernel import Mmd, compute_mmd_stderr, sum_kernel
from fact_metrics.engines.kid import check_sets, rbf_kernel

SCALE = 1000.0


def compute_cmmd(features_gen: torch.Tensor, features_real: torch.Tensor) -> Mmd:
    """CMMD of embeddings [N, D] and [M, D], which are L2-normalised here. Lower is better; 0 for equal sets.

    The error is that of new draws of both sets. float64 where both are, else float32.
    Raises ValueError under 4 rows, where the widths differ, a value is not finite or an embedding is 0.
    """
    x, y = (_normalised(features) for features in check_sets(features_gen, features_real))
    kernel = rbf_kernel()  # less 1, so that pairs of a row with itself are 0 and need not be added
    xx, yy, xy = sum_kernel(kernel, x), sum_kernel(kernel, y), sum_kernel(kernel, x, y)
    n, m = len(x), len(y)
    value = xx.rows.sum() / n**2 + yy.rows.sum() / m**2 - 2 * xy.rows.sum() / (n * m)
    return Mmd(SCALE * value.item(), SCALE * compute_mmd_stderr(xx, yy, xy, reference="sample"))


def _normalised(features: torch.Tensor) -> torch.Tensor:
    norms = features.norm(dim=1, keepdim=True)
    if not (norms > 0).all():
        raise ValueError(f"{int((norms == 0).sum())} embeddings are 0 and have no direction")
    return features / norms
