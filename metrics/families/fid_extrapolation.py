"""FID-infinity: FID at infinitely many generated images. The reals are held fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import INFINITY_SIZES, INFINITY_SMALLEST
from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs


def settings(choice: Choice) -> dict:
    """Of every FID-infinity."""
    return {
        "sizes": INFINITY_SIZES,
        "smallest": INFINITY_SMALLEST,
        "fit": "least squares on 1/N, intercept",
        "subsets": "without replacement, from the evaluation seed",
        "covariance": "N - 1",
        "dtype": "float64",
        "stderr": "exact leave-one-out influence, and that of the subsets",
        "reals": "population",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The extrapolated distance; `extras` have the line and the distances it goes through."""
    from fact_metrics.engines.fid_extrapolation import compute_fid_infinity

    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    curve = compute_fid_infinity(gen, real, seed=inputs.seed)
    return MetricValue(
        curve.value,
        stderr=curve.stderr,
        n_generated=len(gen),
        n_real=len(real),
        extras={"slope": curve.slope, "sizes": list(curve.sizes), "fids": list(curve.fids)},
    )


FAMILIES = (
    Family(
        name="fid_infinity",
        summary="FID to {reals} at infinitely many generated ones, on {features}.",
        higher_is_better=False,
        source=Source("Chong & Forsyth 2020, arXiv:1911.07023", "FID_IS_infinity, with seeded subsets"),
        compute=compute,
        reals=("full",),
        gives=("features",),
        settings=settings,
        minimum=4,
        listed=("fid_infinity10k_full_digits", "fid_infinity10k_full_efficientnet_lite0"),
    ),
)
