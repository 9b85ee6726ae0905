"""How far two feature sets lie in each other's k-nearest-neighbour balls: one pass for four metrics.

Two conventions are in use and give different numbers, so each has a name here: `IMPROVED` (Kynkäänniemi et
al. 2019, arXiv:1904.06991; the StyleGAN papers, torch-fidelity) and `PRDC` (Naeem et al. 2020,
arXiv:2002.09797; prdc, dgm-eval).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fact_metrics.engines.conventions import Balls
from fact_metrics.engines.neighbours import Hits, count_hits, find_radii


@dataclass(frozen=True)
class Overlap:
    """Counts [M] of M generated images and [N] of N real ones, and what the metrics make of them.

    `real_balls` [M]: balls of real images that hold a generated one. `visitors` [N]: generated images in the
    ball of a real one. `gen_balls` [N]: balls of generated images that hold a real one. Standard errors are
    over draws of the generated images, the reals held fixed; recall and coverage have none, as what one
    generated image adds to them depends on the others.
    """

    balls: Balls
    real_balls: torch.Tensor
    visitors: torch.Tensor
    gen_balls: torch.Tensor

    @property
    def n_generated(self) -> int:
        """M."""
        return len(self.real_balls)

    @property
    def n_real(self) -> int:
        """N."""
        return len(self.visitors)

    @property
    def precision(self) -> float:
        """Share of generated images inside a real ball, in [0, 1]."""
        return share(self.real_balls)

    @property
    def recall(self) -> float:
        """Share of real images inside a generated ball, in [0, 1]."""
        return share(self.gen_balls)

    @property
    def density(self) -> float:
        """Mean count of real balls around a generated image, over k: 1 is expected of equal distributions."""
        return self.real_balls.double().mean().item() / self.balls.k

    @property
    def coverage(self) -> float:
        """Share of real balls that hold a generated image, in [0, 1]."""
        return share(self.visitors)

    @property
    def precision_stderr(self) -> float:
        """Generated images are inside or not independently of each other: binomial."""
        return binomial_stderr(int((self.real_balls > 0).sum()), self.n_generated)

    @property
    def density_stderr(self) -> float:
        """Counts of generated images are independent: sd / sqrt(M)."""
        return self.real_balls.double().std().item() / self.n_generated**0.5 / self.balls.k


def measure_overlap(
    features_gen: torch.Tensor,
    features_real: torch.Tensor,
    *,
    conventions: Sequence[Balls],
    real_radii: torch.Tensor | None = None,
) -> list[Overlap]:
    """One overlap per convention, all from one set of distances within and between the two sets.

    Features are [M, D] and [N, D]; `real_radii` is `find_radii` of the reals where that is at hand. Raises
    ValueError where a set has k images or fewer, widths differ or a value is not finite.
    """
    ks, closed = [balls.k for balls in conventions], [balls.closed for balls in conventions]
    of_real, of_gen = count_hits(
        features_gen,
        features_real,
        centre_radii=find_radii(features_real, ks=ks) if real_radii is None else real_radii,
        point_radii=find_radii(features_gen, ks=ks),
        closed=closed,
    )
    counts = zip(of_real.per_point.T, of_real.per_ball.T, of_gen.per_point.T, strict=True)
    return [Overlap(balls, *columns) for balls, columns in zip(conventions, counts, strict=True)]


def count_in_balls(points: torch.Tensor, centres: torch.Tensor, balls: Balls) -> Hits:
    """Points in the balls around centres: less work than `measure_overlap`, for one metric alone."""
    radii = find_radii(centres, ks=[balls.k])
    return count_hits(points, centres, centre_radii=radii, closed=[balls.closed])[0]


def share(counts: torch.Tensor) -> float:
    """Share of counts that are not 0."""
    return (counts > 0).double().mean().item()


def binomial_stderr(successes: float, n: int) -> float:
    """Standard error of a share of n independent draws.

    The share is taken as (successes + 1) / (n + 2), so that none or all is not called certain.
    """
    p = (successes + 1) / (n + 2)
    return (p * (1 - p) / n) ** 0.5
