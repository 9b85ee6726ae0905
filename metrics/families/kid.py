"""KID: squared maximum mean discrepancy between features of generated and of real images.

The full-sample unbiased estimate with its analytic standard error. On Inception's pooled features the extras
also have the peers' number, the mean over 100 random subsets of 1,000 by seed 2020, and their spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.families.fid import reference_kind
from fact_metrics.family import REALS, Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs

WITH_SUBSETS = "inception_pool3"  # whose KID is published as a mean over subsets


def settings(choice: Choice) -> dict:
    """Of every KID."""
    return {
        "kernel": "(x.y / D + 1)^3",
        "estimate": "unbiased, all images, no subsets",
        "dtype": "float32 products, float64 sums",
        "stderr": "U-statistic, to second order",
        "reals": "population" if choice.reals == "full" else "sample",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The distance, a little below 0 for equal sets."""
    from fact_metrics.engines.kid import SUBSET_SIZE, SUBSETS, compute_kid, sum_over_reals

    reals = spec.needs[1]
    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    enough = reals.detector == WITH_SUBSETS and min(len(gen), len(real)) >= SUBSET_SIZE
    subsets = SUBSETS if enough else 0
    sums = None if subsets else inputs.cached_real(reals, "polynomial kernel sums", sum_over_reals)
    kid = compute_kid(gen, real, subsets=subsets, reference=reference_kind(reals), sums_real=sums)
    extras = {"subset_mean": kid.subset_mean, "subset_std": kid.subset_std} if subsets else {}
    return MetricValue(kid.value, stderr=kid.stderr, n_generated=len(gen), n_real=len(real), extras=extras)


def difference(
    spec: MetricSpec, gen_a: torch.Tensor, gen_b: torch.Tensor, real: torch.Tensor
) -> tuple[float, float]:
    """Of two runs on shared latents."""
    from fact_metrics.engines.kid import compute_kid_difference

    found = compute_kid_difference(gen_a, gen_b, real, reference=reference_kind(spec.needs[1]))
    return found.value, found.stderr


FAMILIES = (
    Family(
        name="kid",
        summary="Kernel distance to {reals}, on {features}.",
        higher_is_better=False,
        source=Source(
            "Binkowski et al. 2018, arXiv:1801.01401",
            "torch-fidelity 0.4.0 on the same features, whose subsets average to this value",
        ),
        compute=compute,
        reals=REALS,
        gives=("features",),
        settings=settings,
        difference=difference,
        minimum=4,
        published={"kid50k_full": "kid50k_full_inception_pool3"},
        listed=(
            "kid10k_full_digits",
            "kid10k_full_efficientnet_lite0",
            "kid10k_test_efficientnet_lite0",
            "kid50k_full",
        ),
    ),
)
