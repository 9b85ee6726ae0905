"""Style and noise diversity: how far apart images are that differ in z, or in noise, alone.

    style diversity   z (and label) vary, the noise is one draw for all
    noise diversity   z and label are fixed, the noise varies

Each is the mean Euclidean distance of pairs of generated images over that of pairs of real ones, so that it
knows neither the discriminator nor the unit of the feature space: 0 is one image, 1 as varied as the data.
Under 0.1 the style has collapsed, also where noise makes the images differ: recall does not tell the two
apart. The mean distance of generated pairs as diversity: Zhu et al. 2017, arXiv:1711.11586. Errors:
Hoeffding 1948, doi:10.1214/aoms/1177730196.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.conventions import COLLAPSED
from fact_metrics.features import Detector
from fact_metrics.inputs import GeneratorInputs

BATCH = 50
BLOCK = 512  # rows and columns of a block of pairs
FIXED_STREAM = "fixed"
NOISE_STREAM = "noise diversity"


@dataclass(frozen=True)
class MeanDistance:
    """A mean distance of pairs and its standard error; None where there are too few rows to tell."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Diversity:
    """The ratio of two mean distances, its standard error, and both of them."""

    value: float
    stderr: float | None
    generated: MeanDistance
    real: MeanDistance

    @property
    def collapsed(self) -> bool:
        """Whether the ratio is under 0.1: of images that differ in z, that the style has collapsed."""
        return self.value < COLLAPSED


def compute_mean_distance(features: torch.Tensor) -> MeanDistance:
    """Mean Euclidean distance over all pairs i < j of rows [N, D]: unbiased, whatever N.

    Differences are squared and added up in float64, in blocks: no N x N matrix is held. The standard error is
    that of a U-statistic of two arguments, exact for any N: (4 (N - 2) z1 + 2 z2) / (N (N - 1)), with
    unbiased estimates of z1, the variance of a row's expected distance (never under 0), and z2, that of a
    distance; None under 4 rows. Raises ValueError under 2 rows and where a value is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a mean distance takes 2 rows of features [N, D] or more: {list(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold values that are not finite")
    n = len(features)
    rows, squares = _sum_distances(features)
    mean = rows.sum().item() / (n * (n - 1))
    if n < 4:
        return MeanDistance(mean, None)
    # Sums of distances less their mean: over all pairs, and squared over rows.
    pairs = max(squares - n * (n - 1) * mean**2, 0.0)
    shared = (rows - (n - 1) * mean).square().sum().item()
    # Means of products of two distances that share both rows, one row, none; each is unbiased.
    both = pairs / (n * (n - 1))
    one = (shared - pairs) / (n * (n - 1) * (n - 2))
    none = (2 * pairs - 4 * shared) / (n * (n - 1) * (n - 2) * (n - 3))
    variance = (4 * (n - 2) * max(one - none, 0.0) + 2 * max(both - none, 0.0)) / (n * (n - 1))
    return MeanDistance(mean, math.sqrt(variance))


def compute_group_distance(groups: torch.Tensor) -> MeanDistance:
    """Mean Euclidean distance over pairs of rows of one group, of G groups of R rows [G, R, D].

    The standard error is that of a mean of G independent groups; None for one group. Raises ValueError under
    2 rows a group and where a value is not finite.
    """
    if groups.ndim != 3 or not len(groups):
        raise ValueError(f"groups are features [G, R, D], got {list(groups.shape)}")
    means = torch.tensor([compute_mean_distance(group).value for group in groups], dtype=torch.float64)
    stderr = means.std().item() / len(means) ** 0.5 if len(means) > 1 else None
    return MeanDistance(means.mean().item(), stderr)


def compute_style_diversity(features_gen: torch.Tensor, features_real: torch.Tensor) -> Diversity:
    """Mean distance of generated pairs over that of real pairs. 1 is as varied as the data, 0 one image.

    Features are [M, D] of images that differ in z alone, and [N, D]. The error is of both sides, by the delta
    method. Raises ValueError where widths differ, all real rows are equal, a side has one row or a value is
    not finite.
    """
    _check_widths(features_gen, features_real)
    return _ratio(compute_mean_distance(features_gen), compute_mean_distance(features_real))


def compute_noise_diversity(groups: torch.Tensor, features_real: torch.Tensor) -> Diversity:
    """Mean distance of pairs that share their z over that of real pairs. 0: noise changes nothing.

    Features are [G, R, D], R draws of noise for each of G latents, and [N, D]. The error is of both sides, by
    the delta method. Raises ValueError as `compute_style_diversity` does.
    """
    _check_widths(groups, features_real)
    return _ratio(compute_group_distance(groups), compute_mean_distance(features_real))


def measure_style(
    generator: GeneratorInputs, detector: Detector, *, images: int, share: int = 1
) -> torch.Tensor:
    """Features [images, D], on the CPU, of latents 0, 1, ... under one draw of noise for all of them.

    Each label goes to `share` images in a row.
    """
    fixed = generator.noise([0], stream=FIXED_STREAM)

    def inputs(indices: range) -> tuple[torch.Tensor, list[torch.Tensor]]:
        labels = generator.labels([i // share for i in indices])
        noise = [one.expand(len(indices), -1, -1, -1) for one in fixed]
        return generator.mapping(generator.latents(indices), labels), noise

    return _render(generator, detector, images, inputs)


def measure_noise(
    generator: GeneratorInputs, detector: Detector, *, latents: int, draws: int
) -> torch.Tensor | None:
    """Features [latents, draws, D], on the CPU: fresh noise for each, one z and label for every group.

    None where the network draws no noise.
    """
    if not generator.noise([0], stream=NOISE_STREAM):
        return None

    def inputs(indices: range) -> tuple[torch.Tensor, list[torch.Tensor]]:
        owners = [i // draws for i in indices]
        ws = generator.mapping(generator.latents(owners), generator.labels(owners))
        return ws, generator.noise(indices, stream=NOISE_STREAM)

    return _render(generator, detector, latents * draws, inputs).unflatten(0, (latents, draws))


def _render(
    generator: GeneratorInputs,
    detector: Detector,
    count: int,
    inputs: Callable[[range], tuple[torch.Tensor, list[torch.Tensor]]],
) -> torch.Tensor:
    """Features [count, D] of images as uint8; `inputs(indices)` gives ws and noise."""
    rows = []
    with tf32(False), torch.autocast(detector.device.type, enabled=False):
        for start in range(0, count, BATCH):
            indices = range(start, min(start + BATCH, count))
            rows.append(detector(to_uint8(generator.synthesis(*inputs(indices)))).cpu())
            generator.progress(indices.stop, count)
    return torch.cat(rows)


def _sum_distances(features: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Sums of every row's distances to the others, float64 [N], and of all their squares, both ways."""
    n, squares = len(features), 0.0
    rows = torch.zeros(n, dtype=torch.float64, device=features.device)
    for i in range(0, n, BLOCK):
        left = features[i : i + BLOCK].double()
        for j in range(i, n, BLOCK):
            right = features[j : j + BLOCK].double()
            # Of differences, not of products: equal rows are 0 apart, near ones lose no digits.
            distances = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
            rows[i : i + BLOCK] += distances.sum(dim=1)
            if i != j:
                rows[j : j + BLOCK] += distances.sum(dim=0)
            squares += (1 if i == j else 2) * distances.square().sum().item()
    return rows, squares


def _check_widths(features_gen: torch.Tensor, features_real: torch.Tensor) -> None:
    if features_gen.shape[-1:] != features_real.shape[-1:]:
        shapes = f"{list(features_gen.shape)}, {list(features_real.shape)}"
        raise ValueError(f"features differ in width: {shapes}")


def _ratio(generated: MeanDistance, real: MeanDistance) -> Diversity:
    if real.value == 0:
        raise ValueError("all real rows are equal: there is no diversity to compare with")
    value, stderr = generated.value / real.value, None
    if generated.stderr is not None and real.stderr is not None:
        stderr = math.hypot(generated.stderr, value * real.stderr) / real.value
    return Diversity(value, stderr, generated, real)
