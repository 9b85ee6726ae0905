"""Improved precision and recall: the share of one set inside the k-nearest-neighbour balls of the other.

Kynkäänniemi et al. 2019, arXiv:1904.06991: k = 3, and a distance equal to the radius is inside, as in their
reference and in torch-fidelity. prdc and dgm-eval count k = 5 with `<` instead: `k=5, closed=False`. Peers
compare float32 or float16 distances; here every comparison is exact.
"""

import torch

from fact_metrics.engines.overlap import IMPROVED, Balls, count_in_balls, overlap_of, share
from fact_metrics.registry import (
    FeatureNeed,
    MetricInputs,
    MetricValue,
    Register,
    against_reals,
    published_needs,
    register_metric,
)


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


def _protocol(family: str, needs: tuple[FeatureNeed, ...]) -> Register:
    return register_metric(
        family=family,
        higher_is_better=True,
        citation="Kynkäänniemi et al. 2019, arXiv:1904.06991",
        reference="torch-fidelity 0.4.0 PRC on the same features",
        needs=needs,
        settings=IMPROVED.settings(),
    )


def _precision(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    overlap = overlap_of(inputs, needs, IMPROVED)
    return MetricValue(
        overlap.precision,
        stderr=overlap.precision_stderr,
        n_generated=overlap.n_generated,
        n_real=overlap.n_real,
    )


def _recall(inputs: MetricInputs, needs: tuple[FeatureNeed, ...]) -> MetricValue:
    overlap = overlap_of(inputs, needs, IMPROVED)
    return MetricValue(overlap.recall, n_generated=overlap.n_generated, n_real=overlap.n_real)


TEST_ALEX = against_reals("stlpips_alex", split="test")
TEST_VGG = against_reals("stlpips_vgg", split="test")
TEST_PIXELS = against_reals("pixels", split="test")
FULL_ALEX = against_reals("stlpips_alex", split="train")
FULL_PIXELS = against_reals("pixels_rgb", split="train")
PUBLISHED = published_needs("vgg16_fc2")


@_protocol("precision", TEST_ALEX)
def precision10k3_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on AlexNet LPIPS features."""
    return _precision(inputs, TEST_ALEX)


@_protocol("precision", TEST_VGG)
def precision10k3_test_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on VGG16 LPIPS features."""
    return _precision(inputs, TEST_VGG)


@_protocol("precision", TEST_PIXELS)
def precision10k3_test_pixels(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of test images, on raw pixels (MSE)."""
    return _precision(inputs, TEST_PIXELS)


@_protocol("precision", FULL_ALEX)
def precision10k3_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of training images, on AlexNet LPIPS features."""
    return _precision(inputs, FULL_ALEX)


@_protocol("precision", FULL_PIXELS)
def precision10k3_full_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of training images, on raw colour pixels (MSE)."""
    return _precision(inputs, FULL_PIXELS)


@_protocol("recall", TEST_ALEX)
def recall10k3_test_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on AlexNet LPIPS features."""
    return _recall(inputs, TEST_ALEX)


@_protocol("recall", TEST_VGG)
def recall10k3_test_stlpips_vgg(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on VGG16 LPIPS features."""
    return _recall(inputs, TEST_VGG)


@_protocol("recall", TEST_PIXELS)
def recall10k3_test_pixels(inputs: MetricInputs) -> MetricValue:
    """Share of test images in the 3-neighbour balls of generated ones, on raw pixels (MSE)."""
    return _recall(inputs, TEST_PIXELS)


@_protocol("recall", FULL_ALEX)
def recall10k3_full_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of training images in the 3-neighbour balls of generated ones, on AlexNet LPIPS features."""
    return _recall(inputs, FULL_ALEX)


@_protocol("recall", FULL_PIXELS)
def recall10k3_full_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Share of training images in the 3-neighbour balls of generated ones, on raw colour pixels (MSE)."""
    return _recall(inputs, FULL_PIXELS)


@_protocol("precision", PUBLISHED)
def precision50k3_full(inputs: MetricInputs) -> MetricValue:
    """Share of generated images in the 3-neighbour balls of all training images, on VGG16 fc2 features."""
    return _precision(inputs, PUBLISHED)


@_protocol("recall", PUBLISHED)
def recall50k3_full(inputs: MetricInputs) -> MetricValue:
    """Share of all training images in the 3-neighbour balls of generated ones, on VGG16 fc2 features."""
    return _recall(inputs, PUBLISHED)
