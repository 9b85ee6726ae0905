"""Linear separability (`ls`) of W and StyleSpace by a classifier. Lower is better, 1 is perfect.

    ls10k_w    10,000 generated images, w of the mapping network (without a class part)
    ls10k_s    the same images, all styles of StyleSpace

`fact-eval explain` computes both, because they need a classifier.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.family import Choice, Family, Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.inputs import DeclaredInputs

SPACES = {"w": "w of the mapping network", "s": "StyleSpace"}


def settings(choice: Choice, *, space: str) -> dict:
    """Of both spaces."""
    return {
        "space": space,
        "count": choice.count,
        "kept": "the half that the classifier is surest of",
        "svm": "scikit-learn LinearSVC, C 1, primal, standardised latents, one class against all others",
        "class_part": "left out of w",
    }


def compute(spec: MetricSpec, inputs: DeclaredInputs, *, space: str) -> MetricValue:
    """The score; `extras` have the conditional entropy of every class in nats."""
    from fact_metrics.engines.separability import separability

    latents, logits = inputs.explanation.latents(space, spec.count)
    score, entropies = separability(latents, logits)
    if not any(h is not None for h in entropies):
        return MetricValue(None, n_generated=len(logits), extras={"undefined": "one class has all images"})
    classes = inputs.explanation.classes
    names = [classes[1]] if len(classes) == 2 else classes
    extras = {"entropy": dict(zip(names, entropies, strict=True))}
    return MetricValue(score, n_generated=len(logits), extras=extras)


FAMILIES = tuple(
    Family(
        name="ls",
        variant=space,
        summary=f"Linear separability of {text} by the classifier's answers, {{count}} images.",
        higher_is_better=False,
        compute=partial(compute, space=space),
        source=Source("Karras et al. 2019, arXiv:1812.04948, sec. 4.2", "none: defined here"),
        settings=partial(settings, space=space),
        scored=None,
        needs_explanation=True,
        minimum=8,
    )
    for space, text in SPACES.items()
)
