"""Sharpness: spectral power in high frequencies, of generated images against that of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import SMALLEST_SHARE
from fact_metrics.family import REALS, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

DURALL = Source("Durall et al. 2020, arXiv:2003.01826", "none: defined here")
SETTINGS = {"value": "|log2(mean share generated / mean share real)|", "floor": SMALLEST_SHARE}


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The ratio in octaves; `extras` have both shares."""
    from fact_metrics.engines.sharpness import compute_sharpness, compute_sharpness_stderr, mean_share

    gen, real = (inputs.features(need) for need in spec.needs)
    return MetricValue(
        compute_sharpness(gen, real),
        stderr=compute_sharpness_stderr(gen),
        n_generated=len(gen),
        n_real=len(real),
        extras={
            "ratio": mean_share(gen) / mean_share(real),
            "share_generated": mean_share(gen),
            "share_real": mean_share(real),
        },
    )


FAMILIES = (
    Family(
        name="sharpness",
        summary="How far the share of power in high frequencies is from that of {reals}; 0 is equal.",
        higher_is_better=False,
        source=DURALL,
        compute=compute,
        unit="octaves",
        reals=REALS,
        fixed_detector="spectrum",
        settings=lambda choice: SETTINGS,
        listed=("sharpness10k_full", "sharpness10k_test"),
    ),
)
