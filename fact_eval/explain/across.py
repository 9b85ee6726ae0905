"""Whether training seeds find the same attributes: what they change in the picture, matched between runs.

Coordinates of two generators have no common names, so the mean change of the picture stands for an attribute.
The K attributes of a class in one run are matched one to one with those in another run, and the correlations
over pixels are averaged. The error is the jackknife's over images, those of each run by themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_eval.explain.document import AttributeShape
from fact_eval.explain.filming import Explained
from fact_eval.explain.subject import Subject
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.progress import Progress
from fact_metrics.engines.attributes import LEVEL, Z
from fact_metrics.engines.stability import matched_correlation

IMAGES = 60  # judged images whose changes are averaged
PIXELS = 32  # a side; larger pictures are reduced to it


@dataclass(frozen=True)
class Agreement:
    """Agreement of two runs on the attributes of one class: matched correlation and its standard error."""

    method: str
    class_name: str
    runs: tuple[str, str]
    value: float
    stderr: float


@dataclass(frozen=True)
class Summary:
    """Agreement of a method over all pairs of runs and classes, with a 95 % interval.

    `lowest` and `highest` are the pairs of runs, means over classes. The error takes pairs and classes as
    fully dependent, since they share runs and images.
    """

    method: str
    value: float
    low: float
    high: float
    lowest: float
    highest: float
    level: float = LEVEL


def compare_attributes(
    explained: Sequence[Explained], *, progress: Progress | None = None
) -> list[Agreement]:
    """Agreement of every pair of runs, by method and class. UserError if they explain different things."""
    check_comparable(explained)
    changes = [_changes(one, progress or Progress(quiet=True)) for one in explained]
    first = explained[0].document
    found = []
    for a, b in combinations(range(len(explained)), 2):
        for method, target in changes[a].keys() & changes[b].keys():
            of_a, of_b = changes[a][method, target], changes[b][method, target]
            kept = min(len(of_a), len(of_b))
            value, stderr = agreement(of_a[:kept], of_b[:kept])
            runs = explained[a].job.run_id, explained[b].job.run_id
            found.append(Agreement(method, first.classifier.classes[target], runs, value, stderr))
    return sorted(found, key=lambda one: (one.method, one.runs, one.class_name))


def check_count(runs: int) -> None:
    """UsageError for fewer than two runs."""
    if runs < 2:
        raise UsageError("--across compares two or more runs, such as seeds of one preset; name more runs")


def check_comparable(explained: Sequence[Explained]) -> None:
    """UserError for another classifier or shift."""
    for one in explained[1:]:
        a, b = explained[0].document, one.document
        if a.classifier.sha256 != b.classifier.sha256:
            raise UserError(
                f"{a.run_id} and {b.run_id} explain different classifiers ({a.classifier.name}, "
                f"{b.classifier.name}); explain both with one --classifier"
            )
        if a.shift != b.shift:
            raise UserError(
                f"{a.run_id} and {b.run_id} have edits of shift {a.shift:g} and {b.shift:g}; "
                "explain both with one --shift"
            )


def agreement(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Matched correlation of mean changes [K, N, D] and [K, M, D], and its jackknife error over images."""
    whole_a, whole_b = a.double().mean(dim=1), b.double().mean(dim=1)
    value = matched_correlation(whole_a[None], whole_b[None]).item()
    variance = 0.0
    for changes, other in ((a, whole_b), (b, whole_a)):
        n = changes.shape[1]
        without = (changes.double().sum(dim=1, keepdim=True) - changes) / (n - 1)
        left_out = matched_correlation(without.transpose(0, 1), other.expand(n, -1, -1))
        variance += left_out.var(correction=0).item() * (n - 1)
    return value, math.sqrt(variance)


def summarise(found: Sequence[Agreement]) -> list[Summary]:
    """One line per method, the largest agreement first."""
    lines = []
    for method in dict.fromkeys(one.method for one in found):
        own = [one for one in found if one.method == method]
        value, stderr = (_mean([getattr(one, field) for one in own]) for field in ("value", "stderr"))
        pairs = [_mean([one.value for one in own if one.runs == runs]) for runs in {one.runs for one in own}]
        low, high = max(value - Z * stderr, -1.0), min(value + Z * stderr, 1.0)
        lines.append(Summary(method, value, low, high, min(pairs), max(pairs)))
    return sorted(lines, key=lambda one: -one.value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@torch.inference_mode()
def _changes(explained: Explained, progress: Progress) -> dict[tuple[str, int], Tensor]:
    """By method and class: changes [K, N, D] of the pictures of the judged images of other classes."""
    subject, judged, lists = explained.subject, explained.judged, explained.lists()
    found = {}
    with progress.stage(f"attributes of {explained.job.run_id}", len(lists), unit="lists") as stage:
        for (method, target), attributes in lists.items():
            rows = (judged.predicted != target).nonzero().flatten()[:IMAGES]
            indices = [judged.indices[row] for row in rows.tolist()]
            styles = judged.styles[rows]
            before = _small(subject.render(styles, indices))
            found[method, target] = torch.stack(
                [
                    _small(subject.render(_moved(subject, styles, one, explained.document.shift), indices))
                    - before
                    for one in attributes
                ]
            )
            stage.update(len(found))
    return found


def _moved(subject: Subject, styles: Tensor, attribute: AttributeShape, shift: float) -> Tensor:
    edited, j = styles.clone(), subject.space.coordinate(attribute.layer, attribute.index)
    edited[:, j] += shift * (attribute.target - edited[:, j])
    return edited


def _small(images: Tensor) -> Tensor:
    """Pictures [N, D] of at most PIXELS a side, on the CPU, cut to [-1, 1] as a classifier sees them."""
    images = images.clamp(-1, 1)
    if images.shape[-1] > PIXELS:
        images = F.interpolate(images, size=(PIXELS, PIXELS), mode="area")
    return images.flatten(1).cpu()
