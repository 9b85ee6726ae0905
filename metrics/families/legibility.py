"""Legibility of generated digits: whether a classifier of real digits reads them, and finds all ten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import COVERED, LEGIBLE
from fact_metrics.family import Family, Source, one_image
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs

DEFINED_HERE = Source("this project (`fact-eval train-digits`)", "none: defined here")


def compute_share(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Share of legible images, with the binomial standard error."""
    from fact_metrics.engines.legibility import compute_legibility

    probabilities = inputs.features(spec.needs[0])
    share, n = compute_legibility(probabilities), len(probabilities)
    return MetricValue(
        share, stderr=math.sqrt(share * (1 - share) / n), n_generated=n, extras=_classes(probabilities)
    )


def compute_covered(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Number of classes covered."""
    from fact_metrics.engines.legibility import compute_classes_covered

    probabilities = inputs.features(spec.needs[0])
    return MetricValue(
        float(compute_classes_covered(probabilities)),
        n_generated=len(probabilities),
        extras=_classes(probabilities),
    )


def _classes(probabilities: torch.Tensor) -> dict:
    from fact_metrics.engines.legibility import compute_class_entropy, count_legible

    return {
        "legible_per_class": count_legible(probabilities).tolist(),
        "class_entropy": compute_class_entropy(probabilities),
    }


FAMILIES = (
    Family(
        name="legible",
        summary="Share of images that a classifier of real digits reads with probability 0.9 or more.",
        higher_is_better=True,
        source=DEFINED_HERE,
        compute=compute_share,
        fixed_detector="digits_probs",
        settings=lambda choice: {"legible": f">= {LEGIBLE}"},
        step=one_image,
        scale="odds",
        listed=("legible10k",),
    ),
    Family(
        name="covered",
        summary="How many of the ten digits make up 2 % or more of the legible images each.",
        higher_is_better=True,
        source=DEFINED_HERE,
        compute=compute_covered,
        unit="of 10",
        fixed_detector="digits_probs",
        settings=lambda choice: {
            "legible": f">= {LEGIBLE}",
            "covered": f">= {COVERED} of the legible images",
        },
        step=lambda choice: 1.0,
        listed=("covered10k",),
    ),
)
