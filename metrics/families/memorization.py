"""Memorisation: whether generated images stand closer to training images than these do to each other.

AuthPct is the percentage of authentic images, as dgm-eval reports it. MiFID is FID over the mean cosine
distance of a generated image to its nearest training image, if that mean is below a threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.family import REALS, Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

# Kaggle's for Inception. Held-out MNIST images are 0.055 from the nearest of 10,000 training images on
# EfficientNet (falling by a tenth per doubling): Kaggle's threshold would divide every honest FID there and
# leave that of noise, which is 0.75 away.
THRESHOLDS = {"efficientnet_lite0": 0.03, "inception_pool3": 0.1}
AUTHPCT = {"authentic": "nearest real has a nearer real, <", "distances": "exact in float64"}


def mifid_settings(choice: Choice) -> dict:
    """Of every MiFID."""
    return {
        "covariance": "N - 1",
        "distance": "1 - |cos|, mean over generated images",
        "threshold": THRESHOLDS[choice.detector],
        "dtype": "float64",
        "reals": "population",
    }


def compute_authentic(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Percentage of authentic images, with the binomial standard error."""
    from fact_metrics.engines.memorization import find_authentic
    from fact_metrics.engines.overlap import binomial_stderr

    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    authentic = find_authentic(gen, real)
    return MetricValue(
        100 * authentic.double().mean().item(),
        stderr=100 * binomial_stderr(int(authentic.sum()), len(gen)),
        n_generated=len(gen),
        n_real=len(real),
    )


def compute_mifid(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """FID over the distance, or FID; `extras` have both."""
    from fact_metrics.engines.memorization import SMALLEST_MEANINGFUL, measure_mifid

    gen, real = (inputs.features(need).to(inputs.device) for need in spec.needs)
    found = measure_mifid(gen, real, threshold=spec.settings["threshold"])
    return MetricValue(
        found.value,
        stderr=None if found.distance < SMALLEST_MEANINGFUL else found.stderr,  # else divided by 0
        n_generated=len(gen),
        n_real=len(real),
        extras={"fid": found.fid, "cosine_distance": found.distance},
    )


FAMILIES = (
    Family(
        name="authpct",
        summary="Percentage of generated images without a near copy among {reals}, on {features}.",
        higher_is_better=True,
        source=Source("Alaa et al. 2022, arXiv:2102.08921", "dgm-eval authpct on the same features"),
        compute=compute_authentic,
        unit="%",
        reals=REALS,
        gives=("features",),
        settings=lambda choice: AUTHPCT,
        listed=("authpct10k_full_digits", "authpct10k_full_efficientnet_lite0"),
    ),
    Family(
        name="mifid",
        summary="FID, raised if generated images have near copies among {reals}, on {features}.",
        higher_is_better=False,
        source=Source(
            "Bai et al. 2021, arXiv:2106.03062",
            "the Kaggle competition's MiFID on the same features, with another threshold",
        ),
        sources={
            "inception_pool3": Source(
                "Bai et al. 2021, arXiv:2106.03062", "the Kaggle competition's MiFID on the same features"
            )
        },
        compute=compute_mifid,
        reals=("full",),
        gives=("features",),
        detectors=tuple(THRESHOLDS),
        settings=mifid_settings,
        scale="ratio",
        listed=("mifid10k_full_efficientnet_lite0",),
    ),
)
