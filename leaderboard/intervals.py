"""Intervals and differences of measured values; None if the data do not support one.

Training seeds and evaluation seeds are different sources of variance: each function takes values of one kind.

A few seeds can agree by chance. `floor` is the variance that one value has at least, by its rounding and its
evaluation error (`variance_floor`); the sample variance never counts for less. Seeds that agree without a
known floor have no spread to test against: there is no interval and no p-value. False and true verdicts by
simulation: `python -m benchmarks verdicts`.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
SPREADS = 5.0  # two configurations may differ by this factor in spread before a test errs too often
ROUNDING = 2.0**-23  # of float32, relative: values that agree this closely are one value
NODES, MOST_DEGREES = 32, 200
INDEPENDENT = "independent standard errors"


class Side(NamedTuple):
    """The seeds of one side of a comparison, and the degrees of freedom of its variance."""

    seeds: int
    degrees: float

    @classmethod
    def of(cls, seeds: int) -> "Side":
        """Of seeds that alone tell their variance."""
        return cls(seeds, seeds - 1)


@dataclass(frozen=True)
class Mean:
    """Mean over n seeds; stderr and the half-width of its t interval are None where no spread is known.

    That is the case for one seed, and for seeds that agree without a known floor. `degrees` of freedom of the
    stderr are n - 1, unless more than these seeds tell it.
    """

    mean: float
    n: int
    stderr: float | None
    half_width: float | None
    level: float = LEVEL
    degrees: float | None = None

    @property
    def side(self) -> Side:
        """Its seeds and degrees of freedom."""
        return Side.of(self.n) if self.degrees is None else Side(self.n, self.degrees)

    def ci(self) -> dict | None:
        """{level, low, high, method, n}, or None where no spread is known."""
        if self.half_width is None:
            return None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return {"level": self.level, "low": low, "high": high, "method": "t over seeds", "n": self.n}


@dataclass(frozen=True)
class DifferenceEstimate:
    """B - A with its standard error and two-sided p-value; each is None if it is not known.

    `sides` A and B that Welch's t compares; None for other methods.
    """

    value: float
    stderr: float | None
    p: float | None
    method: str
    sides: tuple[Side, Side] | None = None

    def interval(self, *, level: float = LEVEL) -> tuple[float, float] | None:
        """Confidence interval of a Welch difference: the values that its test does not reject."""
        if self.stderr is None or self.sides is None:
            return None
        half_width = welch_quantile(1 - level, *self.sides) * self.stderr
        return self.value - half_width, self.value + half_width


def variance_floor(*, step: float | None = None, stderrs: Sequence[float | None] = ()) -> float:
    """The variance that one value has at least: that of rounding to a step, and of its evaluation.

    A value rounded to multiples of `step` hides a uniform error of variance step^2 / 12. `stderrs` are the
    values' own standard errors, None where unknown; their mean square adds to it.
    """
    known = [stderr for stderr in stderrs if stderr is not None]
    evaluation = math.fsum(stderr**2 for stderr in known) / len(known) if known else 0.0
    return (step or 0.0) ** 2 / 12 + evaluation


def mean_over_seeds(values: Sequence[float], *, floor: float = 0.0, level: float = LEVEL) -> Mean:
    """Mean with Student's t interval (n - 1 degrees of freedom). Raises ValueError for an empty list."""
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, 1, None, None, level)
    variance = max(math.fsum((value - mean) ** 2 for value in values) / (n - 1), floor)
    if variance <= (ROUNDING * mean) ** 2:
        return Mean(mean, n, None, None, level)
    stderr = math.sqrt(variance / n)
    return Mean(mean, n, stderr, t_quantile(0.5 + level / 2, n - 1) * stderr, level)


def paired_difference(a: Sequence[float], b: Sequence[float], *, floor: float = 0.0) -> DifferenceEstimate:
    """Mean of b - a over shared seeds (the same latents on both sides), paired t test if n > 1.

    `floor` is that of one value by its rounding alone: the evaluation error is what the pairs share.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    mean = mean_over_seeds([y - x for x, y in zip(a, b, strict=True)], floor=2 * floor)
    largest = max(map(abs, (*a, *b)))
    if mean.n == 1:
        return DifferenceEstimate(mean.mean, None, None, "one shared seed: no error")
    if mean.stderr is None or mean.stderr <= ROUNDING * largest:
        return _no_spread(mean.mean)
    p = 2 * _upper_t(abs(mean.mean) / mean.stderr, mean.n - 1)
    return DifferenceEstimate(mean.mean, mean.stderr, p, f"paired t, n={mean.n}")


def independent_difference(
    a: Sequence[float], b: Sequence[float], *, floor: float = 0.0
) -> DifferenceEstimate:
    """Difference of means of independent seeds, `difference_of_means`; no error if a side has one seed."""
    return difference_of_means(mean_over_seeds(a, floor=floor), mean_over_seeds(b, floor=floor))


def difference_of_means(mean_a: Mean, mean_b: Mean) -> DifferenceEstimate:
    """Welch's t statistic, its p-value the largest over all spreads within 1 : SPREADS of each other.

    Welch's own degrees of freedom come from the samples, and reject too often where few seeds hide unequal
    spreads. For normal values and given spreads the p-value is exact. It is convex in the share that one side
    has of the variance, so the largest is at an end of the range (as Mickey & Brown 1966 show without a
    range, Ann. Math. Statist. 37:639, whose p-value has the fewer seeds' n - 1 degrees of freedom).
    """
    value = mean_b.mean - mean_a.mean
    if 1 in (mean_a.n, mean_b.n):
        return DifferenceEstimate(value, None, None, "one seed on a side: no error")
    if mean_a.stderr is None or mean_b.stderr is None:
        return _no_spread(value)
    stderr, sides = math.hypot(mean_a.stderr, mean_b.stderr), (mean_a.side, mean_b.side)
    p = _largest_p(abs(value) / stderr, *sides)
    return DifferenceEstimate(value, stderr, p, f"Welch, n={mean_a.n}+{mean_b.n}", sides)


@functools.cache
def welch_quantile(p: float, a: Side, b: Side) -> float:
    """Welch's t statistic at which `difference_of_means` of two sides has this p-value."""
    from scipy.optimize import brentq

    highest = 1.0
    while _largest_p(highest, a, b) > p:
        highest *= 2
    return brentq(lambda t: _largest_p(t, a, b) - p, 0.0, highest, rtol=1e-12)


def difference_of_pairs(value: float, stderr: float | None, *, n: int) -> DifferenceEstimate:
    """B - A over n pairs of images that share their latents, with the standard error of that difference."""
    if stderr is None:
        return DifferenceEstimate(value, None, None, f"{n} pairs of images: no error")
    return _normal_difference(value, stderr, f"paired images, n={n:,}")


def analytic_difference(
    a: float, stderr_a: float, b: float, stderr_b: float, *, floor: float = 0.0
) -> DifferenceEstimate:
    """Difference of two values with their own standard errors, taken as independent and normal.

    If both share latents, they are positively correlated and the error is too wide, never too narrow.
    `floor` is that of one value by its rounding alone.
    """
    stderrs = [max(stderr, math.sqrt(floor)) for stderr in (stderr_a, stderr_b)]
    return _normal_difference(b - a, math.hypot(*stderrs), INDEPENDENT)


def holm(p_values: Sequence[float | None], *, family: int | None = None) -> list[float | None]:
    """Holm's step-down correction for several comparisons; None stays None and does not count.

    `family` is the number of comparisons made where that is more: the others count as not significant.
    Raises ValueError where it is less.
    """
    order = sorted((i for i, p in enumerate(p_values) if p is not None), key=lambda i: p_values[i])
    corrected: list[float | None] = [None] * len(p_values)
    family = len(order) if family is None else family
    if family < len(order):
        raise ValueError(f"a family of {family} comparisons cannot hold {len(order)}")
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (family - rank)))
        corrected[index] = running
    return corrected


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _no_spread(value: float) -> DifferenceEstimate:
    """Of seeds that agree with each other: equal means are no difference, others cannot be tested."""
    if value == 0:
        return DifferenceEstimate(0.0, 0.0, 1.0, "equal values")
    return DifferenceEstimate(value, None, None, "seeds agree: no spread to test against")


def _normal_difference(value: float, stderr: float, method: str) -> DifferenceEstimate:
    if stderr == 0:
        return DifferenceEstimate(value, 0.0, 1.0 if value == 0 else None, method)
    return DifferenceEstimate(value, stderr, math.erfc(abs(value) / stderr / math.sqrt(2)), method)


def _upper_t(t: float, df: float) -> float:
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def _largest_p(t: float, a: Side, b: Side) -> float:
    """P(|T| > t) of Welch's statistic for normal values, the larger one of both extreme spreads.

    With shares w and 1 - w of the variance, T^2 = Z^2 / (w A / f_a + (1 - w) B / f_b), A and B chi-squared.
    A / (A + B) is a beta variable and independent of A + B, given which T is a scaled t of f_a + f_b degrees.
    """
    from scipy.special import stdtr

    degrees, weights, scales = _quadrature(a, b)
    return float(max(2 * stdtr(degrees, -t * scales) @ weights))


@functools.cache
def _quadrature(a: Side, b: Side) -> "tuple[float, np.ndarray, np.ndarray]":
    """f_a + f_b, weights of Gauss-Jacobi nodes [NODES], and by what t is scaled there, [2, NODES]."""
    import numpy as np
    from scipy.special import roots_jacobi

    f_a, f_b = (min(side.degrees, MOST_DEGREES) for side in (a, b))
    nodes, weights = roots_jacobi(NODES, f_b / 2 - 1, f_a / 2 - 1)
    beta = (1 + nodes) / 2
    scales = []
    for ratio in (SPREADS**2, SPREADS**-2):
        share = ratio * b.seeds / (ratio * b.seeds + a.seeds)
        scales.append(np.sqrt((f_a + f_b) * (share * beta / f_a + (1 - share) * (1 - beta) / f_b)))
    return f_a + f_b, weights / weights.sum(), np.stack(scales)
