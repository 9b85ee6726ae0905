"""Legibility of generated digits: does a classifier trained on real digits read them, and are all ten there?

The judge is the `digits_probs` detector, trained by `fact-eval train-digits` and never seen by a generator.
It gives pictures that are no digit no confident class (metrics/features/weights/digits.json has the shares).
"""

import math

import torch

from fact_metrics.registry import DIGIT_DATASETS, FeatureNeed, MetricInputs, MetricValue, register_metric

LEGIBLE = 0.9
COVERED = 0.02


def compute_legibility(probabilities: torch.Tensor) -> float:
    """Share of images with a class at 0.9 or more, of class probabilities [N, K]. Higher is better."""
    return find_legible(probabilities).double().mean().item()


def compute_classes_covered(probabilities: torch.Tensor) -> int:
    """Number of classes with 2 % or more of the legible images of [N, K]. Higher is better; 0 to K."""
    counts = count_legible(probabilities)
    return int((counts >= COVERED * counts.sum().clamp(min=1)).sum())


def compute_class_entropy(probabilities: torch.Tensor) -> float | None:
    """Entropy of legible images' classes over log K: 1 is even, 0 one class; None without such an image."""
    counts = count_legible(probabilities).double()
    if counts.sum() == 0:
        return None
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item() / math.log(len(counts)) + 0.0


def count_legible(probabilities: torch.Tensor) -> torch.Tensor:
    """Legible images of every class: int64 [K]."""
    legible = probabilities[find_legible(probabilities)]
    return legible.argmax(dim=1).bincount(minlength=probabilities.shape[1])


def find_legible(probabilities: torch.Tensor) -> torch.Tensor:
    """bool [N]: images with a class at 0.9 or more. Raises ValueError unless rows are probabilities."""
    sums = probabilities.double().sum(dim=-1)
    if probabilities.ndim != 2 or len(probabilities) == 0 or not ((sums - 1).abs() < 1e-3).all():
        raise ValueError(f"class probabilities [N, K] sum to 1 in every row, got {list(probabilities.shape)}")
    return probabilities.amax(dim=1) >= LEGIBLE


def _extras(probabilities: torch.Tensor) -> dict:
    return {
        "legible_per_class": count_legible(probabilities).tolist(),
        "class_entropy": compute_class_entropy(probabilities),
    }


NEEDS = (FeatureNeed("digits_probs", "generated", count=10_000),)
SHARED = {
    "citation": "this project, metrics/features/digits.py",
    "reference": "none: defined here",
    "needs": NEEDS,
    "datasets": DIGIT_DATASETS,
}


@register_metric(family="legible", higher_is_better=True, settings={"legible": f">= {LEGIBLE}"}, **SHARED)
def legible10k(inputs: MetricInputs) -> MetricValue:
    """Share of images that a classifier of real digits reads with probability 0.9 or more."""
    probabilities = inputs.features(NEEDS[0])
    share, n = compute_legibility(probabilities), len(probabilities)
    return MetricValue(
        share, stderr=math.sqrt(share * (1 - share) / n), n_generated=n, extras=_extras(probabilities)
    )


@register_metric(
    family="covered",
    higher_is_better=True,
    unit="of 10",
    settings={"legible": f">= {LEGIBLE}", "covered": f">= {COVERED} of the legible images"},
    **SHARED,
)
def covered10k(inputs: MetricInputs) -> MetricValue:
    """How many of the ten digits make up 2 % or more of the legible images each."""
    probabilities = inputs.features(NEEDS[0])
    return MetricValue(
        float(compute_classes_covered(probabilities)),
        n_generated=len(probabilities),
        extras=_extras(probabilities),
    )
