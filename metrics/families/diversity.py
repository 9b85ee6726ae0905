"""Style and noise diversity: how far apart images are that differ in z, or in noise, alone.

    style diversity   z (and label) vary, the noise is one draw for all
    noise diversity   z and label are fixed, the noise varies

Each is the mean distance of pairs of generated images over that of pairs of real ones: 0 is one image, 1 as
varied as the data. Under 0.1 the style has collapsed, also if noise makes the images differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import COLLAPSED
from fact_metrics.family import REALS, Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.engines.diversity import Diversity
    from fact_metrics.inputs import DeclaredInputs

DRAWS = 5  # of noise per z, or of z per label
UNDEFINED = {"undefined": "all real images are equal: there is no diversity to compare with"}


def compute_style(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The ratio; `extras` have the verdict and, with labels, the ratio of images of one label."""
    from fact_metrics.engines import diversity
    from fact_metrics.features import get_detector

    detector, real = get_detector(spec.detectors[0], inputs.device), _real(spec, inputs)
    if real is None:
        return MetricValue(None, extras=UNDEFINED)
    features = diversity.measure_style(inputs.generator, detector, images=spec.count)
    found = diversity.compute_style_diversity(features.to(inputs.device), real)
    collapsed, extras = found.collapsed, {}
    if inputs.generator.labels([0]) is not None:  # labels vary images without any help of z
        features = diversity.measure_style(inputs.generator, detector, images=spec.count, share=DRAWS)
        groups = features.unflatten(0, (-1, DRAWS)).to(inputs.device)
        alone = diversity.compute_noise_diversity(groups, real)
        collapsed = collapsed or alone.collapsed
        extras = {"z_alone": alone.value, "z_alone_stderr": alone.stderr}
    return MetricValue(
        found.value,
        stderr=found.stderr,
        n_generated=spec.count,
        n_real=len(real),
        extras={"verdict": "collapsed" if collapsed else "varied", **_distances(found), **extras},
    )


def compute_noise(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The ratio; 0, without an image, if the network draws no noise."""
    from fact_metrics.engines import diversity
    from fact_metrics.features import get_detector

    detector, real = get_detector(spec.detectors[0], inputs.device), _real(spec, inputs)
    if real is None:
        return MetricValue(None, extras=UNDEFINED)
    groups = diversity.measure_noise(inputs.generator, detector, latents=spec.count // DRAWS, draws=DRAWS)
    if groups is None:
        return MetricValue(0.0, stderr=0.0, n_real=len(real), extras={"noise": "the network draws none"})
    found = diversity.compute_noise_diversity(groups.to(inputs.device), real)
    return MetricValue(
        found.value, stderr=found.stderr, n_generated=spec.count, n_real=len(real), extras=_distances(found)
    )


def _real(spec: MetricSpec, inputs: DeclaredInputs) -> torch.Tensor | None:
    """Features of the reals; None if they are all equal."""
    features = inputs.features(spec.needs[0]).to(inputs.device)
    return None if (features == features[0]).all() else features


def _distances(found: Diversity) -> dict:
    return {"distance_generated": found.generated.value, "distance_real": found.real.value}


def _shared(choice: Choice) -> dict:
    return {"images": choice.count, "distance": "Euclidean, all pairs i < j", "dtype": "float64"}


def style_settings(choice: Choice) -> dict:
    """Of style diversity."""
    return {
        **_shared(choice),
        "noise": "where it is random, one draw for all images",
        "z": "fresh per image, with its label",
        "z_alone": f"where there are labels: one for {DRAWS} images each, pairs that share it",
        "collapsed": f"value or z_alone < {COLLAPSED}",
        "stderr": "U-statistics of both sides, delta method",
    }


def noise_settings(choice: Choice) -> dict:
    """Of noise diversity."""
    return {
        **_shared(choice),
        "noise": "fresh per image; 0 where the network draws none",
        "z": f"one, with its label, for {DRAWS} images each; pairs that share it",
        "stderr": "mean of groups, U-statistic of the reals, delta method",
    }


SHARED = {
    "source": Source(
        "this project; mean distance of pairs: Zhu et al. 2017, arXiv:1711.11586",
        "scipy's pdist on the same features",
    ),
    "scored": None,
    "reals": REALS,
    "gives": ("features",),
    "needs_generator": True,
    "minimum": 2 * DRAWS,
    "multiple": DRAWS,
}
LISTED = ("1k_train_pixels", "1k_train_pixels_rgb", "1k_train_stlpips_alex")

FAMILIES = (
    Family(
        name="style_diversity",
        summary="Distance of images of different z, noise fixed, over that of {reals}; {features}; "
        "< 0.1 is collapsed.",
        higher_is_better=True,
        compute=compute_style,
        settings=style_settings,
        listed=tuple(f"style_diversity{rest}" for rest in LISTED),
        **SHARED,
    ),
    Family(
        name="noise_diversity",
        summary="Distance of images of one z under different noise over that of {reals}; {features}.",
        higher_is_better=False,
        compute=compute_noise,
        settings=noise_settings,
        listed=tuple(f"noise_diversity{rest}" for rest in LISTED),
        **SHARED,
    ),
)
