"""The encoder's branch as a generator: FID, precision, recall, legibility and sharpness of reconstructions.

The same functions as for G(mapping(z)), so that the branches can be told apart. Reconstructed are held-out
images and the reference are training images: a set is never compared with the very images it was made from.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import LEGIBLE
from fact_metrics.families import fid, precision_recall, sharpness
from fact_metrics.families.legibility import DEFINED_HERE
from fact_metrics.family import Family, one_image
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs


def compute_legible(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Share of legible reconstructions, with the binomial standard error."""
    from fact_metrics.engines.legibility import compute_legibility

    probabilities = inputs.features(spec.needs[0])
    share, n = compute_legibility(probabilities), len(probabilities)
    return MetricValue(share, stderr=math.sqrt(share * (1 - share) / n), n_generated=n)


BALLS = {
    "higher_is_better": True,
    "source": precision_recall.KYNKAANNIEMI,
    "scored": "reconstructed",
    "reals": ("full", "train"),
    "gives": ("features",),
    "neighbours": True,
    "settings": partial(precision_recall.settings, closed=True),
    "step": one_image,
    "scale": "odds",
}

FAMILIES = (
    Family(
        name="reconfid",
        summary="Fréchet distance of reconstructed test images to {reals}, on {features}.",
        higher_is_better=False,
        source=fid.HEUSEL,
        compute=fid.compute,
        scored="reconstructed",
        reals=("full", "train"),
        gives=("features",),
        settings=fid.settings,
        scale="ratio",
        listed=("reconfid10k_full_digits", "reconfid10k_full_efficientnet_lite0"),
    ),
    Family(
        name="reconprecision",
        summary="Share of reconstructed test images in the {k}-neighbour balls of {reals}, on {features}.",
        compute=partial(precision_recall.compute, of="precision", closed=True),
        listed=("reconprecision10k3_train_stlpips_alex",),
        **BALLS,
    ),
    Family(
        name="reconrecall",
        summary="Share of {reals} in the {k}-neighbour balls of reconstructed test images, on {features}.",
        compute=partial(precision_recall.compute, of="recall", closed=True),
        listed=("reconrecall10k3_train_stlpips_alex",),
        **BALLS,
    ),
    Family(
        name="reconlegible",
        summary="Share of reconstructed test images that a classifier of real digits reads with "
        "probability 0.9.",
        higher_is_better=True,
        source=DEFINED_HERE,
        compute=compute_legible,
        scored="reconstructed",
        fixed_detector="digits_probs",
        settings=lambda choice: {"legible": f">= {LEGIBLE}"},
        step=one_image,
        scale="odds",
        listed=("reconlegible10k",),
    ),
    Family(
        name="reconsharpness",
        summary="How far the share of power in high frequencies of reconstructed test images is from that of "
        "{reals}; 0 is equal.",
        higher_is_better=False,
        source=sharpness.DURALL,
        compute=sharpness.compute,
        unit="octaves",
        scored="reconstructed",
        reals=("full", "train"),
        fixed_detector="spectrum",
        settings=lambda choice: sharpness.SETTINGS,
        listed=("reconsharpness10k_full",),
    ),
)
