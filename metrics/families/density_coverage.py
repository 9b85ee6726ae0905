"""Density and coverage: how many real balls hold a generated image, and how many of them hold any.

Naeem et al. 2020, arXiv:2002.09797: k = 5, and a distance equal to the radius is outside, as in their
reference prdc and in dgm-eval. An outlier among the reals has a large ball, which precision counts like any
other; density weighs it once, and coverage asks for reals, not for generated ones, to be reached.
"""

import torch

from fact_metrics.engines.overlap import (
    PRDC,
    Balls,
    Overlap,
    count_in_balls,
    measure_overlap,
    overlap_of,
    share,
)
from fact_metrics.registry import (
    FeatureNeed,
    MetricInputs,
    MetricValue,
    Register,
    against_reals,
    published_needs,
    register_metric,
)


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


def _protocol(family: str, needs: tuple[FeatureNeed, ...]) -> Register:
    return register_metric(
        family=family,
        higher_is_better=True,
        citation="Naeem et al. 2020, arXiv:2002.09797",
        reference="prdc 0.2 on the same features",
        needs=needs,
        settings=PRDC.settings(),
    )


def _density(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    overlap = overlap_of(inputs, needs, PRDC)
    return MetricValue(
        overlap.density,
        stderr=overlap.density_stderr,
        n_generated=overlap.n_generated,
        n_real=overlap.n_real,
    )


def _coverage(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    overlap = overlap_of(inputs, needs, PRDC)
    return MetricValue(overlap.coverage, n_generated=overlap.n_generated, n_real=overlap.n_real)


TEST_ALEX = against_reals("stlpips_alex", split="test")
FULL_ALEX = against_reals("stlpips_alex", split="train")
PUBLISHED = published_needs("vgg16_fc2")


@_protocol("density", TEST_ALEX)
def density10k5_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """How many 5-neighbour balls of test images hold a generated one, over 5, on AlexNet features."""
    return _density(inputs, TEST_ALEX)


@_protocol("density", FULL_ALEX)
def density10k5_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """How many 5-neighbour balls of training images hold a generated one, over 5, on AlexNet features."""
    return _density(inputs, FULL_ALEX)


@_protocol("coverage", TEST_ALEX)
def coverage10k5_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of 5-neighbour balls of test images that hold a generated one, on AlexNet LPIPS features."""
    return _coverage(inputs, TEST_ALEX)


@_protocol("coverage", FULL_ALEX)
def coverage10k5_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of 5-neighbour balls of training images that hold a generated one, on AlexNet LPIPS features."""
    return _coverage(inputs, FULL_ALEX)


@_protocol("density", PUBLISHED)
def density50k5_full(inputs: MetricInputs) -> MetricValue:
    """How many 5-neighbour balls of training images hold a generated one, over 5, on VGG16 fc2 features."""
    return _density(inputs, PUBLISHED)


@_protocol("coverage", PUBLISHED)
def coverage50k5_full(inputs: MetricInputs) -> MetricValue:
    """Share of 5-neighbour balls of training images that hold a generated one, on VGG16 fc2 features."""
    return _coverage(inputs, PUBLISHED)
