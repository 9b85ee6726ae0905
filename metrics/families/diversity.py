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

from fact_metrics.base.tf32 import tf32
from fact_metrics.families.consistency import to_uint8
from fact_metrics.features import Detector, get_detector
from fact_metrics.registry import (
    FeatureNeed,
    GeneratorInputs,
    MetricInputs,
    MetricValue,
    Register,
    register_metric,
)

COLLAPSED = 0.1  # style diversity under it
IMAGES = 1000
DRAWS = 5  # of noise per z, or of z per label
REALS = 1000
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


def _style_value(inputs: MetricInputs, real_need: FeatureNeed) -> MetricValue:
    detector, real = get_detector(real_need.detector, inputs.device), _real(inputs, real_need)
    if real is None:
        return MetricValue(None, extras=UNDEFINED)
    features = measure_style(inputs.generator, detector, images=IMAGES)
    found = compute_style_diversity(features.to(inputs.device), real)
    collapsed, extras = found.collapsed, {}
    if inputs.generator.labels([0]) is not None:  # labels vary images without any help of z
        features = measure_style(inputs.generator, detector, images=IMAGES, share=DRAWS)
        groups = features.unflatten(0, (-1, DRAWS)).to(inputs.device)
        alone = compute_noise_diversity(groups, real)
        collapsed = collapsed or alone.collapsed
        extras = {"z_alone": alone.value, "z_alone_stderr": alone.stderr}
    return MetricValue(
        found.value,
        stderr=found.stderr,
        n_generated=IMAGES,
        n_real=len(real),
        extras={"verdict": "collapsed" if collapsed else "varied", **_distances(found), **extras},
    )


def _noise_value(inputs: MetricInputs, real_need: FeatureNeed) -> MetricValue:
    detector, real = get_detector(real_need.detector, inputs.device), _real(inputs, real_need)
    if real is None:
        return MetricValue(None, extras=UNDEFINED)
    groups = measure_noise(inputs.generator, detector, latents=IMAGES // DRAWS, draws=DRAWS)
    if groups is None:  # by definition, without an image
        return MetricValue(0.0, stderr=0.0, n_real=len(real), extras={"noise": "the network draws none"})
    found = compute_noise_diversity(groups.to(inputs.device), real)
    return MetricValue(
        found.value, stderr=found.stderr, n_generated=IMAGES, n_real=len(real), extras=_distances(found)
    )


UNDEFINED = {"undefined": "all real images are equal: there is no diversity to compare with"}


def _real(inputs: MetricInputs, need: FeatureNeed) -> torch.Tensor | None:
    """Features of the reals; None where they are all equal."""
    features = inputs.features(need).to(inputs.device)
    return None if (features == features[0]).all() else features


def _distances(found: Diversity) -> dict:
    return {"distance_generated": found.generated.value, "distance_real": found.real.value}


def _diversity(need: FeatureNeed, *, family: str, higher_is_better: bool, settings: dict) -> Register:
    return register_metric(
        family=family,
        higher_is_better=higher_is_better,
        citation="this project; mean distance of pairs: Zhu et al. 2017, arXiv:1711.11586",
        reference="scipy's pdist on the same features",
        needs=[need],
        needs_generator=True,
        settings={"images": IMAGES, "distance": "Euclidean, all pairs i < j", "dtype": "float64", **settings},
    )


def _style(need: FeatureNeed) -> Register:
    settings = {
        "noise": "where it is random, one draw for all images",
        "z": "fresh per image, with its label",
        "z_alone": f"where there are labels: one for {DRAWS} images each, pairs that share it",
        "collapsed": f"value or z_alone < {COLLAPSED}",
        "stderr": "U-statistics of both sides, delta method",
    }
    return _diversity(need, family="style_diversity", higher_is_better=True, settings=settings)


def _noise(need: FeatureNeed) -> Register:
    settings = {
        "noise": "fresh per image; 0 where the network draws none",
        "z": f"one, with its label, for {DRAWS} images each; pairs that share it",
        "stderr": "mean of groups, U-statistic of the reals, delta method",
    }
    return _diversity(need, family="noise_diversity", higher_is_better=False, settings=settings)


PIXELS, RGB, PERCEPTUAL = (
    FeatureNeed(detector, "real", split="train", count=REALS)
    for detector in ("pixels", "pixels_rgb", "stlpips_alex")
)


@_style(PIXELS)
def style_diversity1k_train_pixels(inputs: MetricInputs) -> MetricValue:
    """Distance of images of different z, noise fixed, over that of reals; gray pixels; < 0.1 is collapsed."""
    return _style_value(inputs, PIXELS)


@_style(RGB)
def style_diversity1k_train_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Distance of images of different z, noise fixed, over that of reals; RGB pixels; < 0.1 is collapsed."""
    return _style_value(inputs, RGB)


@_style(PERCEPTUAL)
def style_diversity1k_train_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Distance of images of different z, noise fixed, over that of reals; perceptual; < 0.1 is collapsed."""
    return _style_value(inputs, PERCEPTUAL)


@_noise(PIXELS)
def noise_diversity1k_train_pixels(inputs: MetricInputs) -> MetricValue:
    """Distance of images of one z under different noise over that of reals; gray pixels."""
    return _noise_value(inputs, PIXELS)


@_noise(RGB)
def noise_diversity1k_train_pixels_rgb(inputs: MetricInputs) -> MetricValue:
    """Distance of images of one z under different noise over that of reals; RGB pixels."""
    return _noise_value(inputs, RGB)


@_noise(PERCEPTUAL)
def noise_diversity1k_train_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Distance of images of one z under different noise over that of reals; perceptual."""
    return _noise_value(inputs, PERCEPTUAL)
