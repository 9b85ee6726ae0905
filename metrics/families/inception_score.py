"""Inception score: how sure a classifier is of each image, and of how many classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fact_metrics.engines.conventions import SCORE_SPLITS
from fact_metrics.family import Choice, Family, Source
from fact_metrics.features import DETECTORS
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

CLASSES = {"inception_logits": "1,008, without the bias of the last layer", "digits_probs": "10"}


def settings(choice: Choice) -> dict:
    """Of every inception score."""
    return {
        "splits": SCORE_SPLITS,
        "order": "as generated",
        "classes": CLASSES[choice.detector],
        "dtype": "float64",
        "stderr": "over splits",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """The mean over splits; `extras` have the peers' "+-", the standard deviation over splits."""
    from fact_metrics.engines.inception_score import compute_inception_score

    (need,) = spec.needs
    outputs = inputs.features(need).to(inputs.device)
    logits = "class logits" in DETECTORS[need.detector].gives
    score = compute_inception_score(outputs, logits=logits, seed=None)
    extras = {"split_std": score.split_std}
    return MetricValue(score.value, stderr=score.split_stderr, n_generated=len(outputs), extras=extras)


FAMILIES = (
    Family(
        name="is",
        summary="Inception score: how sure a classifier is of each image, and of how many classes; by "
        "{features}.",
        higher_is_better=True,
        source=Source(
            "Salimans et al. 2016, arXiv:1606.03498",
            "is50k of StyleGAN2-ADA; torch-fidelity 0.4.0 on the same logits, in order",
        ),
        compute=compute,
        gives=("class logits", "class probabilities"),
        detectors=tuple(CLASSES),
        settings=settings,
        minimum=SCORE_SPLITS,
        published={"is50k": "is50k_inception_logits"},
        listed=("is50k",),
    ),
)
