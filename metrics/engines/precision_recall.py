"""Improved precision and recall: the share of one set inside the k-nearest-neighbour balls of the other.

Kynkäänniemi et al. 2019, arXiv:1904.06991: k = 3, and a distance equal to the radius is inside, as in their
reference and in torch-fidelity. prdc and dgm-eval count k = 5 with `<` instead: `k=5, closed=False`. Peers
compare float32 or float16 distances; here every comparison is exact.
"""

import torch

from fact_metrics.engines.conventions import IMPROVED, Balls
from fact_metrics.engines.overlap import count_in_balls, share


def compute_precision(
    features_gen: torch.Tensor,
    features_real: torch.Tensor,
    *,
    k: int = IMPROVED.k,
    closed: bool = IMPROVED.closed,
) -> float:
    """Share of generated features within the k-th-neighbour distance of a real one. Higher is better.

    Features are [M, D] and [N, D] of one detector, of any float type; `closed` says whether a distance equal
    to the radius is inside. Raises ValueError where there are k reals or fewer, the widths differ or a value
    is not finite.
    """
    return share(count_in_balls(features_gen, features_real, Balls(k, closed)).per_point)


def compute_recall(
    features_gen: torch.Tensor,
    features_real: torch.Tensor,
    *,
    k: int = IMPROVED.k,
    closed: bool = IMPROVED.closed,
) -> float:
    """Share of real features within the k-th-neighbour distance of a generated one. Higher is better.

    As `compute_precision` with the sets exchanged.
    """
    return compute_precision(features_real, features_gen, k=k, closed=closed)
