"""Values that the arithmetic gives but that say nothing about the images, and why.

The numbers stay as they are. The first reason that holds goes into `extras["degenerate"]`, and every place
that shows the number marks it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fact_metrics.engines.memorization import SMALLEST_MEANINGFUL
from fact_metrics.spec import MetricSpec, MetricValue

# Twice the largest standard error of a share of 10,000 images: below, empty balls are lost in the error.
EMPTY_BALLS = 0.01
BELOW = 3.0  # standard errors below 0: one honest value in 700
DISTANCES_BELOW_0 = ("fid_infinity", "kid")  # estimates of distances that may come out negative
FRECHET = ("fid", "fd", "sfid", "reconfid", "fid_infinity", "mifid")


@dataclass(frozen=True)
class Rows:
    """A set of features: how many, how wide, and the sizes of the groups of equal rows."""

    n: int
    width: int
    groups: tuple[int, ...]

    @property
    def constant(self) -> bool:
        """Whether all rows are equal."""
        return self.groups == (self.n,)

    def empty_balls(self, k: int) -> int:
        """Rows whose k nearest neighbours are equal to them: their balls have radius 0."""
        return sum(size for size in self.groups if size > k)


Sides = Mapping[str, Rows]


def describe_rows(features: torch.Tensor) -> Rows:
    """`Rows` of features [N, ...]. Rows are compared by 64-bit hashes of their bytes."""
    flat = (features.detach().flatten(1).cpu() + 0.0).contiguous().numpy()  # -0.0 becomes 0.0
    sizes = Counter(hash(row.tobytes()) for row in flat).values()
    return Rows(len(flat), flat.shape[1], tuple(sorted(size for size in sizes if size > 1)))


def find_degenerate(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    """Why a value means nothing; None if nothing is wrong. `sides` are the features at hand, by name."""
    if value.value is None:
        return None
    return next((reason for rule in RULES if (reason := rule(spec, value, sides))), None)


def _constant(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    """Only of a comparison: without reals, a set of equal images has a value of its own."""
    if not any(need.side == "real" for need in spec.needs):
        return None
    found = next((name for name, rows in sides.items() if rows.constant), None)
    return found and f"all {sides[found].n:,} {found} images have the same features"


def _empty_balls(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    k = spec.settings.get("k")
    if k is None:
        return None
    for name, rows in sides.items():
        if (empty := rows.empty_balls(k)) > EMPTY_BALLS * rows.n:
            return f"{empty:,} of {rows.n:,} {name} images have {k} exact copies or more: balls of radius 0"
    return None


def _divided_by_zero(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    if spec.family != "mifid" or value.extras["cosine_distance"] >= SMALLEST_MEANINGFUL:
        return None
    distance = value.extras["cosine_distance"]
    return f"the generated images are copies: their mean distance of {distance:.1g} is rounding"


def _below_zero(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    if spec.family not in DISTANCES_BELOW_0 or value.stderr is None:
        return None
    if value.value >= -BELOW * value.stderr:
        return None
    errors = f"{-value.value / value.stderr:.1f} standard errors" if value.stderr else "without an error"
    return f"a distance {errors} below 0: the two sets share images, or the images are too few"


def _singular(spec: MetricSpec, value: MetricValue, sides: Sides) -> str | None:
    if spec.family not in FRECHET:
        return None
    for name, rows in sides.items():
        if rows.n <= rows.width:
            return f"{rows.n:,} {name} images for {rows.width:,} features: the distance mostly measures N"
    if value.extras.get("singular_by_count"):
        return "fewer images than features: the distance mostly measures N"
    return None


Rule = Callable[[MetricSpec, MetricValue, Sides], str | None]
RULES: tuple[Rule, ...] = (_constant, _empty_balls, _divided_by_zero, _below_zero, _singular)
