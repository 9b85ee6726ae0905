"""MIND: mean squared Wasserstein distance of one-dimensional projections of the features, times 3 D."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import MIND_DIRECTIONS, MIND_SEED
from fact_metrics.family import REALS, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

SETTINGS = {
    "directions": MIND_DIRECTIONS,
    "seed": MIND_SEED,
    "scale": "3 D",
    "lengths": "quantile functions, exact",
    "dtype": "float32",
}


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The distance; 0 for equal sets."""
    from fact_metrics.engines.mind import compute_mind

    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    return MetricValue(compute_mind(gen, real), n_generated=len(gen), n_real=len(real))


FAMILIES = (
    Family(
        name="mind",
        summary="Monge inception distance to {reals}, on {features}.",
        higher_is_better=False,
        source=Source(
            "Berthet et al. 2026, arXiv:2605.06797",
            "torch-fidelity 0.5-dev on the same features, for sets of one length",
        ),
        compute=compute,
        reals=REALS,
        gives=("features",),
        settings=lambda choice: SETTINGS,
        listed=("mind10k_full_digits", "mind10k_full_efficientnet_lite0"),
    ),
)
