"""Modes of stacked digits: how many of the 1,000 classes a generator has, and how evenly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import BOOTSTRAPS, MODES
from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

PACGAN = Source(
    "Lin et al. 2018, arXiv:1712.04086", "PacGAN's protocol: 26,000 images, a classifier in each channel"
)


def compute_number(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Number of modes with an image."""
    from fact_metrics.engines.modes import bootstrap_modes, compute_channels_legible, compute_modes

    probabilities = inputs.features(spec.needs[0]).cpu()
    return MetricValue(
        compute_modes(probabilities),
        stderr=bootstrap_modes(probabilities)[0],
        n_generated=len(probabilities),
        extras={"legible": compute_channels_legible(probabilities)},
    )


def compute_divergence(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """KL of the modes to the uniform distribution."""
    from fact_metrics.engines.modes import bootstrap_modes, compute_mode_kl

    probabilities = inputs.features(spec.needs[0]).cpu()
    return MetricValue(
        compute_mode_kl(probabilities),
        stderr=bootstrap_modes(probabilities)[1],
        n_generated=len(probabilities),
    )


def settings(choice: Choice) -> dict:
    """Of both metrics."""
    return {"modes": MODES, "class": "likeliest digit of each channel", "bootstraps": BOOTSTRAPS}


FAMILIES = (
    Family(
        name="modes",
        summary="How many of the 1,000 classes of stacked digits have an image among {count}.",
        higher_is_better=True,
        source=PACGAN,
        compute=compute_number,
        unit="of 1,000",
        fixed_detector="stacked_digits_probs",
        settings=settings,
        step=lambda choice: 1.0,
        listed=("modes26k",),
    ),
    Family(
        name="modekl",
        summary="KL divergence of the classes of {count} stacked digits to the uniform distribution.",
        higher_is_better=False,
        source=PACGAN,
        compute=compute_divergence,
        unit="nats",
        fixed_detector="stacked_digits_probs",
        settings=settings,
        listed=("modekl26k",),
    ),
)
