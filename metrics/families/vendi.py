"""Vendi score: the effective number of different images in a set, without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.family import Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The score: from 1 to the number of images, or the width of the features."""
    from fact_metrics.engines.vendi import compute_vendi_score

    (need,) = spec.needs
    features = inputs.features(need).to(inputs.device)
    return MetricValue(compute_vendi_score(features), n_generated=len(features))


FAMILIES = (
    Family(
        name="vendi",
        summary="Effective number of different images, on {features}; variety, not quality.",
        higher_is_better=True,
        source=Source("Friedman & Dieng 2023, arXiv:2210.02410", "vendi-score 0.0.3 on the same features"),
        compute=compute,
        gives=("features",),
        settings=lambda choice: {"kernel": "cosine", "dtype": "float64"},
        listed=("vendi10k_digits",),
    ),
)
