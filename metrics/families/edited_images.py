"""Numbers of edited images on features: FID and split FID by number of attributes, and minimality.

    cffid250_attfind_greedy_digits         FID of the edits and the pictures they were made from
    cfsplitfid250_attfind_greedy_digits    the same between halves; spatial FID is `sfid`
    minimality250_attfind_greedy_digits    how close an edit is, beside the images of its class and the target

`fact-eval explain` computes them beside those of attributes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fact_metrics.families.attributes import (
    ATTRIBUTES,
    GLOBAL,
    METHODS,
    Number,
    counterfactuals,
    explanation_family,
    mean_over_images,
    normal_interval,
)
from fact_metrics.family import Source
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    import torch

    from fact_metrics.inputs import DeclaredInputs

ORIGINALS = "held-out pictures of a StylEx run, the unedited images of any other"
ONE_EDIT = "one of every image, its targets by turns"


def compute_edits_fid(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """FID of edits and their originals; `extras` have it by number of attributes, from 0."""
    from fact_metrics.engines.edited_images import compute_edits_fid

    return _fid_curve(spec, inputs, compute_edits_fid)


def compute_split_fid(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """FID of edits of one half and originals of the other; `extras` as of `compute_edits_fid`."""
    from fact_metrics.engines.edited_images import compute_split_fid

    return _fid_curve(spec, inputs, partial(compute_split_fid, seed=inputs.seed))


def _fid_curve(spec: MetricSpec, inputs: DeclaredInputs, distance: Callable) -> MetricValue:
    from fact_metrics.engines.edited_images import one_per_image

    found = counterfactuals(spec, inputs)
    rows = one_per_image(found.image)
    originals = _features(spec, inputs, "originals", found.originals[rows])
    curve = []
    for k in range(ATTRIBUTES + 1):
        pictures = found.edits[rows, k - 1] if k else found.unedited[rows]
        result = distance(_features(spec, inputs, k, pictures), originals)
        curve.append({"k": k, "value": result.value, "stderr": result.stderr})
    n, (value, stderr) = len(rows), (result.value, result.stderr)
    few = {"singular_by_count": n <= originals.shape[1]}
    ci = None if stderr is None else normal_interval(value, stderr, n, low=0.0)
    extras = {"curve": curve, **few}
    return MetricValue(value, stderr=stderr, ci=ci, n_generated=n, n_real=n, extras=extras)


def compute_minimality(spec: MetricSpec, inputs: DeclaredInputs) -> MetricValue:
    """Mean divergence of the edits; `extras` have the means of its two shares."""
    from fact_metrics.engines import attributes as engine
    from fact_metrics.engines.edited_images import compute_latent_divergence

    found = counterfactuals(spec, inputs)
    unedited = _features(spec, inputs, 0, found.unedited)
    edited = _features(spec, inputs, ATTRIBUTES, found.edited)
    classes = found.before.argmax(dim=1)
    first = [int((found.image == number).nonzero()[0]) for number in found.image.unique()]
    divergence = compute_latent_divergence(
        unedited, edited, classes, found.target, unedited[first], classes[first]
    )
    values = engine.per_image(divergence.value, found.image)
    shares = {name: getattr(divergence, name).mean().item() for name in ("near", "far")}
    return mean_over_images(values, **shares)


def _features(spec: MetricSpec, inputs: DeclaredInputs, what: object, pictures: torch.Tensor) -> torch.Tensor:
    """Features [P, D] of pictures of a method; `what` names them among those of the method."""
    from fact_metrics.features import get_detector

    (name,) = spec.detectors
    key = ("features of edits", spec.settings["method"], what, len(pictures), name)
    return inputs.shared(key, lambda: get_detector(name, inputs.device)(pictures).cpu())


ON_FEATURES: dict[str, Number] = {
    "cffid": (
        "FID of edits with 10 attributes of {method} and the pictures they were made from, on {{features}}.",
        False,
        compute_edits_fid,
        Source("Jeanneret et al. 2022, arXiv:2203.15636; Heusel et al. 2017", "torch-fidelity 0.4.0"),
        {"gives": ("features",), "more": {"originals": ORIGINALS, "edits": ONE_EDIT, "stderr": "paired"}},
    ),
    "cfsplitfid": (
        "Split FID: edits of one half of the images with 10 attributes of {method} against originals of the "
        "other half, on {{features}}.",
        False,
        compute_split_fid,
        Source("Jeanneret et al. 2023, arXiv:2303.09962, there sFID", "compute_sFID.sh of ACE, 10 times"),
        {
            "gives": ("features",),
            "more": {"originals": ORIGINALS, "edits": ONE_EDIT, "splits": 10, "stderr": "jackknife"},
        },
    ),
    "minimality": (
        "Counterfactual latent divergence of edits with 10 attributes of {method}, on {{features}}.",
        False,
        compute_minimality,
        Source(
            "Sanchez & Tsaftaris 2022, arXiv:2202.10166; Melistas et al. 2024, arXiv:2403.20287",
            "evaluation/metrics/minimality.py of counterfactual-benchmark",
        ),
        {"gives": ("features",), "more": {"weights": [0.8, 0.2], "distance": "mean absolute difference"}},
    ),
}
# FID of the 60 images that are explained one by one means little.
OF_SETS = (*GLOBAL, "control")
FAMILIES = tuple(
    explanation_family(name, method, number)
    for name, number in ON_FEATURES.items()
    for method in (METHODS if name == "minimality" else OF_SETS)
)
