"""CMMD: maximum mean discrepancy between CLIP embeddings of generated and of real images, times 1000."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.family import REALS, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

SETTINGS = {
    "kernel": "exp(-|x - y|^2 / (2 * 10^2)) of unit vectors",
    "estimate": "biased, all images, x 1000",
    "dtype": "float32 products, float64 sums",
    "stderr": "U-statistic, to second order; both sets are samples",
}


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The distance; 0 for equal sets."""
    from fact_metrics.engines.cmmd import compute_cmmd

    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    found = compute_cmmd(gen, real)
    return MetricValue(found.value, stderr=found.stderr, n_generated=len(gen), n_real=len(real))


FAMILIES = (
    Family(
        name="cmmd",
        summary="Kernel distance to {reals}, on {features}, times 1000.",
        higher_is_better=False,
        source=Source(
            "Jayasumana et al. 2024, arXiv:2401.09603",
            "google-research's cmmd and sayakpaul/cmmd-pytorch on the same embeddings",
        ),
        compute=compute,
        reals=REALS,
        gives=("features",),
        detectors=("clip_vit_l14_336", "clip_vit_b32"),
        settings=lambda choice: SETTINGS,
        minimum=4,
        published={"cmmd50k_full": "cmmd50k_full_clip_vit_l14_336"},
        listed=("cmmd50k_full",),
    ),
)
