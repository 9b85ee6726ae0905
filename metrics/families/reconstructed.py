"""The encoder's branch as a generator: FID, precision, recall and legibility of reconstructions as a set.

The same functions as for G(mapping(z)), so that the branches can be told apart. Reconstructed are held-out
images and the reference are training images: a set is never compared with the very images it was made from.
"""

import math

from fact_metrics.engines.overlap import IMPROVED, overlap_of
from fact_metrics.families.fid import STDERR, reference_kind
from fact_metrics.families.fid import _value as fid_value
from fact_metrics.families.legibility import LEGIBLE, compute_legibility
from fact_metrics.registry import DIGIT_DATASETS, FeatureNeed, MetricInputs, MetricValue, register_metric

HEUSEL = {
    "citation": "Heusel et al. 2017, arXiv:1706.08500",
    "reference": "torch-fidelity 0.4.0 and clean-fid 0.1.35 on the same features",
}
KYNKAANNIEMI = {
    "citation": "Kynkäänniemi et al. 2019, arXiv:1904.06991",
    "reference": "torch-fidelity 0.4.0 PRC on the same features",
}


def _against_training(detector: str, *, count: int | None) -> tuple[FeatureNeed, FeatureNeed]:
    reconstructed = FeatureNeed(detector, "reconstructed", split="test", count=10_000)
    return reconstructed, FeatureNeed(detector, "real", split="train", count=count)


def _fid_settings(needs: tuple[FeatureNeed, ...]) -> dict:
    return {
        "covariance": "N - 1",
        "dtype": "float64",
        "stderr": STDERR,
        "reals": reference_kind(needs[1]),
    }


DIGITS = _against_training("digits", count=None)
EFFICIENTNET = _against_training("efficientnet_lite0", count=None)
ALEX = _against_training("stlpips_alex", count=10_000)
READ = (FeatureNeed("digits_probs", "reconstructed", split="test", count=10_000),)


@register_metric(
    family="reconfid",
    higher_is_better=False,
    needs=DIGITS,
    settings=_fid_settings(DIGITS),
    datasets=DIGIT_DATASETS,
    **HEUSEL,
)
def reconfid10k_full_digits(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance of reconstructed test images to all training images, digit classifier features."""
    return fid_value(inputs, DIGITS)


@register_metric(
    family="reconfid",
    higher_is_better=False,
    needs=EFFICIENTNET,
    settings=_fid_settings(EFFICIENTNET),
    **HEUSEL,
)
def reconfid10k_full_efficientnet_lite0(inputs: MetricInputs) -> MetricValue:
    """Fréchet distance of reconstructed test images to all training images, EfficientNet-Lite0 features."""
    return fid_value(inputs, EFFICIENTNET)


@register_metric(
    family="reconprecision", higher_is_better=True, needs=ALEX, settings=IMPROVED.settings(), **KYNKAANNIEMI
)
def reconprecision10k3_train_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of reconstructed test images in the 3-neighbour balls of 10,000 training images, LPIPS."""
    overlap = overlap_of(inputs, ALEX, IMPROVED)
    return MetricValue(
        overlap.precision,
        stderr=overlap.precision_stderr,
        n_generated=overlap.n_generated,
        n_real=overlap.n_real,
    )


@register_metric(
    family="reconrecall", higher_is_better=True, needs=ALEX, settings=IMPROVED.settings(), **KYNKAANNIEMI
)
def reconrecall10k3_train_stlpips_alex(inputs: MetricInputs) -> MetricValue:
    """Share of 10,000 training images in the 3-neighbour balls of reconstructed test images, LPIPS."""
    overlap = overlap_of(inputs, ALEX, IMPROVED)
    return MetricValue(overlap.recall, n_generated=overlap.n_generated, n_real=overlap.n_real)


@register_metric(
    family="reconlegible",
    higher_is_better=True,
    citation="this project, metrics/features/digits.py",
    reference="none: defined here",
    needs=READ,
    settings={"legible": f">= {LEGIBLE}"},
    datasets=DIGIT_DATASETS,
)
def reconlegible10k(inputs: MetricInputs) -> MetricValue:
    """Share of reconstructed test images that a classifier of real digits reads with probability 0.9."""
    probabilities = inputs.features(READ[0])
    share, n = compute_legibility(probabilities), len(probabilities)
    return MetricValue(share, stderr=math.sqrt(share * (1 - share) / n), n_generated=n)
