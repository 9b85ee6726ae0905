"""The numbers that explanations are judged by: one family per number, one variant per method.

    flips250_attfind_greedy     share of images that the first 10 attributes of AttFind flip
    flips250_random             the same of random coordinates: the level of chance

`fact-eval explain` computes them. It adds the classifier, the second classifier and the classes to the
protocol, so that values compare only among runs that are explained alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.family import Choice, Family, Source, one_image
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import Counterfactuals, DeclaredInputs

METHODS = {
    "attfind_greedy": "AttFind's greedy selection",
    "attfind_independent": "AttFind's independent selection, image by image",
    "attfind_subset": "AttFind's subset selection, image by image",
    "class_mean": "the class means of StyleSpace",
    "gradient": "the gradient of the logit in StyleSpace",
    "random": "random coordinates",
    "control": "AttFind's greedy selection for a classifier with random weights",
}
ONE_BY_ONE = ("attfind-independent", "attfind-subset")
IMAGES = {
    False: "equally many of each class by the classifier, none of the searched ones",
    True: "the first 60 of the searched ones, equally many of each class by the classifier",
}
ATTRIBUTES = 10
CHANGED = 13  # of 255: a difference of 0.1 in [-1, 1]
STEPS = 50
CYCLES = 10
SPLITS = 10  # of the searched images into halves


def settings(choice: Choice, *, method: str, **more) -> dict:
    """Of every number here."""
    return {
        "method": method,
        "attributes": ATTRIBUTES,
        "count": choice.count,
        "images": IMAGES[method in ONE_BY_ONE],
        "targets": "at most 2 of the other classes for every image, by turns",
        "target of an edit": "smallest or largest style of the coordinate among the searched images",
        **more,
    }


def compute_flips(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Share flipped by all attributes; `extras` have the share by number of attributes, class and classifier.

    `own_only` marks an explanation that moves its own classifier and not an independently trained one.
    """
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    flipped = engine.flips(found.after, found.target)
    curve = _curve(engine.per_image(flipped, found.image))
    by_class = {
        name: _curve(flipped[found.target == k])
        for k, name in enumerate(inputs.explanation.classes)
        if (found.target == k).any()
    }
    extras = {"curve": curve, "towards": by_class, "pairs": len(flipped)}
    if found.second_after is not None:
        second = engine.flips(found.second_after, found.target)
        extras["second"] = _curve(engine.per_image(second, found.image))
        extras["own_only"] = extras["second"][-1]["high"] < curve[-1]["low"]
    share = engine.per_image(flipped[:, -1], found.image)
    value = _share(share)
    return MetricValue(value.value, stderr=value.stderr, ci=value.ci, n_generated=len(share), extras=extras)


def compute_effectiveness(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Share of edited images that a classifier which was not explained assigns to the target."""
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    if found.second_after is None:
        return MetricValue(None, extras={"undefined": "no second classifier"})
    values = engine.per_image(engine.flips(found.second_after, found.target)[:, -1], found.image)
    return _share(values)


def compute_logit_change(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean change with all attributes; `extras`: by number of attributes, and the second classifier's."""
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    changes = engine.per_image(engine.logit_changes(found.before, found.after, found.target), found.image)
    extras = {"curve": changes.mean(dim=0).tolist()}
    if found.second_after is not None:
        second = engine.logit_changes(found.second_before, found.second_after, found.target)
        extras["second"] = engine.per_image(second, found.image).mean(dim=0).tolist()
    return mean_over_images(changes[:, -1], **extras)


def compute_sparsity(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean of the fewest attributes that flip an image, 11 where 10 do not; `extras` have the Gini index."""
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    needed = engine.per_image(engine.attributes_to_flip(found.after, found.target), found.image)
    steps = engine.logit_changes(found.before, found.after, found.target).mean(dim=0)
    single = steps.diff(prepend=steps.new_zeros(1)).clamp(min=0)
    return mean_over_images(
        needed, gini=engine.gini(single), gini_of="mean logit change that each attribute adds"
    )


def compute_lpips(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean distance of images from their edits."""
    from fact_metrics.engines import attributes as engine
    from fact_metrics.engines import pair_distances

    found = counterfactuals(spec, inputs)
    if min(found.edited.shape[-2:]) < pair_distances.SMALLEST_LPIPS:
        return MetricValue(None, extras={"undefined": f"below {pair_distances.SMALLEST_LPIPS} pixels"})
    (detector,) = spec.detectors
    distances = pair_distances.compute_lpips(
        found.unedited, found.edited, detector=detector, value_range=(0, 255), device=inputs.device
    )
    return mean_over_images(engine.per_image(distances.double(), found.image))


def compute_mse(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean squared difference of images from their edits."""
    from fact_metrics.engines import attributes as engine
    from fact_metrics.engines import pair_distances

    found = counterfactuals(spec, inputs)
    distances = pair_distances.compute_mse(found.unedited, found.edited, value_range=(0, 255))
    return mean_over_images(engine.per_image(distances, found.image))


def compute_changed(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean share of pixels that an edit changes visibly."""
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    shares = engine.changed_pixels(found.unedited, found.edited, threshold=CHANGED)
    return mean_over_images(engine.per_image(shares, found.image))


def compute_cout(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean COUT of the pairs of every image."""
    from fact_metrics.engines import attributes as engine

    found = counterfactuals(spec, inputs)
    values = engine.compute_cout(
        found.unedited,
        found.edited,
        found.before.argmax(dim=1),
        found.target,
        lambda images: inputs.explanation.logits(images).softmax(dim=1),
        steps=STEPS,
    )
    return mean_over_images(engine.per_image(values, found.image))


def compute_stability(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean stability over classes of the attributes from random halves of the searched images.

    `extras` have the overlap of the two halves of a split. The error takes classes as fully dependent.
    """
    from fact_metrics.engines.attributes import Z
    from fact_metrics.engines.stability import compute_stability, rank_biased_overlap

    halves = inputs.explanation.halves(spec.settings["method"], SPLITS)
    universe = inputs.explanation.attribute_count
    found = [compute_stability(lists, universe) for lists in halves]
    splits = [pair for lists in halves for pair in zip(lists[::2], lists[1::2], strict=True)]
    jaccard = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in splits]
    rbo = [rank_biased_overlap(a, b) for a, b in splits]
    value, stderr = (sum(column) / len(found) for column in zip(*found, strict=True))
    interval = _interval(value - Z * stderr, min(value + Z * stderr, 1.0), "normal", 2 * SPLITS)
    extras = {
        "by_class": [one for one, _ in found],
        "jaccard": sum(jaccard) / len(splits),
        "rank_biased_overlap": sum(rbo) / len(splits),
    }
    return MetricValue(value, stderr=stderr, ci=interval, n_generated=spec.count, extras=extras)


def compute_composition(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean drift after CYCLES passes without an edit; `extras` have it after one."""
    from fact_metrics.engines import pair_distances

    pictures = inputs.explanation.cycles((0, 1, CYCLES))
    if pictures is None:
        return MetricValue(None, extras={"undefined": "no encoder"})
    drift = {
        n: pair_distances.compute_mse(pictures[0], pictures[n], value_range=(0, 255)) for n in (1, CYCLES)
    }
    return mean_over_images(drift[CYCLES], after_1=drift[1].mean().item())


def counterfactuals(spec: MetricSpec, inputs: DeclaredInputs) -> Counterfactuals:
    """The edits of the method of a number."""
    return inputs.explanation.counterfactuals(spec.settings["method"])


def _curve(flipped: torch.Tensor) -> list[dict]:
    """Share and interval by number of attributes, of [N, K]."""
    from fact_metrics.engines.attributes import wilson_interval

    curve = []
    for k, share in enumerate(flipped.mean(dim=0).tolist(), start=1):
        low, high = wilson_interval(share, len(flipped))
        curve.append({"k": k, "value": round(share, 4), "low": round(low, 4), "high": round(high, 4)})
    return curve


def _interval(low: float, high: float, method: str, n: int) -> dict:
    from fact_metrics.engines.attributes import LEVEL

    return {"level": LEVEL, "low": low, "high": high, "method": method, "n": n}


def _share(values: torch.Tensor) -> MetricValue:
    """Mean of shares over images, with Wilson's interval and the error of as many single draws."""
    from fact_metrics.engines.attributes import wilson_interval
    from fact_metrics.engines.overlap import binomial_stderr

    share, n = values.mean().item(), len(values)
    low, high = wilson_interval(share, n)
    stderr = binomial_stderr(share * n, n)
    return MetricValue(share, stderr=stderr, ci=_interval(low, high, "Wilson", n), n_generated=n)


def mean_over_images(values: torch.Tensor, **extras) -> MetricValue:
    """Mean over images, with the normal interval."""
    from fact_metrics.engines.pair_distances import mean_and_stderr

    mean, stderr = mean_and_stderr(values)
    interval = None if stderr is None else normal_interval(mean, stderr, len(values))
    return MetricValue(mean, stderr=stderr, ci=interval, n_generated=len(values), extras=extras)


def normal_interval(value: float, stderr: float, n: int, *, low: float = -math.inf) -> dict:
    """The normal interval, cut at the lowest possible value."""
    from fact_metrics.engines.attributes import Z

    return _interval(max(value - Z * stderr, low), value + Z * stderr, "normal", n)


LANG = Source("Lang et al. 2021, arXiv:2104.13369", "none: defined here")

Number = tuple[str, bool, Callable, Source, dict]
# name -> (summary, higher is better, compute, source, other fields of the family)
NUMBERS: dict[str, Number] = {
    "flips": (
        "Sufficiency: share of images whose class becomes the target with 10 attributes of {method}.",
        True,
        compute_flips,
        LANG,
        {"step": one_image, "scale": "odds"},
    ),
    "effectiveness": (
        "Share of images that an independently trained classifier assigns to the target, 10 attributes of "
        "{method}.",
        True,
        compute_effectiveness,
        Source("Monteiro et al. 2023, arXiv:2303.01274, with a classifier as oracle", "none: defined here"),
        {"step": one_image, "scale": "odds"},
    ),
    "logitchange": (
        "Change of the target's logit, less that of the image's class, with 10 attributes of {method}.",
        True,
        compute_logit_change,
        LANG,
        {"unit": "logits"},
    ),
    "sparsity": (
        "Attributes of {method} that are needed to flip an image, 11 if 10 are not enough.",
        False,
        compute_sparsity,
        Source("this project; Gini index: Hurley & Rickard 2009", "none: defined here"),
        {"unit": "attributes"},
    ),
    "cfmse": (
        "Mean squared difference of images and their edits with 10 attributes of {method}.",
        False,
        compute_mse,
        LANG,
        {"unit": "of [-1, 1]"},
    ),
    "cfchanged": (
        "Share of pixels that 10 attributes of {method} change by more than 0.1 of [-1, 1].",
        False,
        compute_changed,
        Source("this project", "none: defined here"),
        {},
    ),
    "cout": (
        "COUT in 50 steps: the target's probability gains before the class loses, 10 attributes of {method}.",
        True,
        compute_cout,
        Source("Khorram & Fuxin 2022, arXiv:2203.15064, eq. 8", "none: defined here"),
        {},
    ),
    "attstability": (
        "Stability of the attributes that {method} finds in random halves of the images: 1 if equal, 0 by "
        "chance.",
        True,
        compute_stability,
        Source(
            "Nogueira, Sechidis & Brown 2018, JMLR 18(174); rank-biased overlap: Webber et al. 2010",
            "stability.py of nogueirs/JMLR2018",
        ),
        {"version": 2, "more": {"splits": SPLITS}},
    ),
    "cflpips": (
        "Perceptual distance of images and their edits with 10 attributes of {method}, {{features}}.",
        False,
        compute_lpips,
        LANG,
        {"gives": ("distance",)},
    ),
}
# Methods with one list of attributes for all images: the others have no halves of images.
GLOBAL = ("attfind_greedy", "class_mean", "gradient", "random")


def explanation_family(name: str, method: str, number: Number) -> Family:
    """A number of one method; `more` among its other fields are settings of its own."""
    summary, higher, compute, source, fields = number
    fields = dict(fields)
    more = fields.pop("more", {})
    return Family(
        name=name,
        variant=method,
        summary=summary.format(method=METHODS[method]),
        higher_is_better=higher,
        compute=compute,
        source=source,
        settings=partial(settings, method=method.replace("_", "-"), **more),
        scored=None,
        needs_explanation=True,
        minimum=8,
        **fields,
    )


COMPOSITION = Family(
    name="composition",
    summary="Mean squared drift of held-out images after 10 passes through encoder and generator, no edit.",
    higher_is_better=False,
    compute=compute_composition,
    unit="of [-1, 1]",
    source=Source("Monteiro et al. 2023, arXiv:2303.01274, sec. 3.1", "none: defined here"),
    settings=lambda choice: {"cycles": CYCLES, "count": choice.count, "images": IMAGES[False]},
    scored=None,
    needs_explanation=True,
    minimum=8,
)
FAMILIES = (
    COMPOSITION,
    *(
        explanation_family(name, method, number)
        for name, number in NUMBERS.items()
        for method in METHODS
        if name != "attstability" or method in GLOBAL
    ),
)
