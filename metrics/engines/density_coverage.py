"""Density and coverage: how many real balls hold a generated image, and how many of them hold any.

Naeem et al. 2020, arXiv:2002.09797: k = 5, and a distance equal to the radius is outside, as in their
reference prdc and in dgm-eval. An outlier among the reals has a large ball, which precision counts like any
other; density weighs it once, and coverage asks for reals, not for generated ones, to be reached.
"""

import torch

from fact_metrics.engines.conventions import PRDC, Balls
from fact_metrics.engines.overlap import Overlap, count_in_balls, measure_overlap, share


def compute_density(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = PRDC.k, closed: bool = PRDC.closed
) -> float:
    """Mean number of real k-neighbour balls around a generated feature, over k. Higher is better.

    About 1 for equal distributions and at most N / k: it exceeds 1 where generated images crowd where reals
    do. Features are [M, D] and [N, D] of one detector; `closed` says whether a distance equal to the radius
    is inside. Raises ValueError where there are k reals or fewer, the widths differ or a value is not finite.
    """
    return count_in_balls(features_gen, features_real, Balls(k, closed)).per_point.double().mean().item() / k


def compute_coverage(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = PRDC.k, closed: bool = PRDC.closed
) -> float:
    """Share of real k-neighbour balls that hold a generated feature. Higher is better; in [0, 1].

    For equal distributions and sizes about 1 - 2^-k, 0.97 at k = 5. Arguments as in `compute_density`.
    """
    return share(count_in_balls(features_gen, features_real, Balls(k, closed)).per_ball)


def compute_prdc(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = PRDC.k, closed: bool = PRDC.closed
) -> Overlap:
    """Precision, recall, density and coverage from one set of distances: the attributes of the result.

    >>> rows = torch.arange(8.0)[:, None]
    >>> found = compute_prdc(rows, rows)
    >>> found.precision, found.recall, found.coverage
    (1.0, 1.0, 1.0)

    Features are [M, D] and [N, D]. Raises ValueError where a set has k images or fewer, the widths differ or
    a value is not finite.
    """
    return measure_overlap(features_gen, features_real, conventions=[Balls(k, closed)])[0]
