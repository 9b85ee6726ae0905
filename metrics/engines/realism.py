"""Realism: how deep inside a real image's ball a picture lies. One number per picture, for ranking pictures.

Kynkäänniemi et al. 2019, arXiv:1904.06991, section 5, equation 3: the largest ratio over real images of the
ball's radius to the picture's distance, over the half of the balls whose radius is below the median, as the
large ones are of outliers. Distances are not squared, as in the paper and in dgm-eval; the paper's own code
takes the ratio of squares, the square of the number here, and adds 1e-5 to the denominator.
"""

import torch

from fact_metrics.engines.conventions import IMPROVED
from fact_metrics.engines.neighbours import BLOCK, Pairs, find_radii
from fact_metrics.engines.products import full_float32

ROUNDING = 1 + 2.0**-20  # of a float32 quotient, and more


def compute_realism(
    features_gen: torch.Tensor, features_real: torch.Tensor, *, k: int = IMPROVED.k
) -> torch.Tensor:
    """Realism of every generated feature, float64 [M]. Higher is better; 1 or more is inside a ball.

    Features are [M, D] and [N, D] of one detector; a copy of a kept real has an infinite value. Raises
    ValueError where there are k reals or fewer, no radius is both positive and below the median (copies among
    the reals), the widths differ or a value is not finite.
    """
    pairs = Pairs(features_gen, features_real)
    radii = find_radii(features_real, ks=[k])[:, 0] / pairs.unit**2
    kept = ((radii < radii.quantile(0.5)) & (radii > 0)).nonzero()[:, 0]
    if not len(kept):
        raise ValueError(f"of {len(radii)} real balls none has a positive radius below the median")
    smallest = torch.full((len(features_gen),), torch.inf, dtype=torch.float64, device=radii.device)
    with full_float32(features_gen.device):
        for rows, columns, lower in pairs.blocks(column_parts=kept.split(BLOCK)):
            ratios = lower / radii[columns].float()
            # The likeliest pair of each row first: after it hardly any lower bound is small enough to matter.
            chosen = torch.zeros_like(ratios, dtype=torch.bool)
            chosen.scatter_(1, ratios.argmin(dim=1, keepdim=True), True)
            for _ in range(2):
                row, column = chosen.nonzero().unbind(dim=1)
                row, column = row + rows.start, columns[column]
                exact = pairs.exact(row, column) / radii[column]
                smallest.scatter_reduce_(0, row, exact, "amin")
                chosen = ratios <= smallest[rows, None].float() * ROUNDING
    return smallest.rsqrt()
