"""Intervals and differences of measured values; None if the data do not support one.

Training seeds and evaluation seeds are different sources of variance: each function takes values of one kind.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
INDEPENDENT = "independent standard errors"


@dataclass(frozen=True)
class Mean:
    """Mean over n seeds; stderr and the half-width of its t interval are None for one seed."""

    mean: float
    n: int
    stderr: float | None
    half_width: float | None
    level: float = LEVEL

    def ci(self) -> dict | None:
        """{level, low, high, method, n}, or None for one seed."""
        if self.half_width is None:
            return None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return {"level": self.level, "low": low, "high": high, "method": "t over seeds", "n": self.n}


@dataclass(frozen=True)
class DifferenceEstimate:
    """B - A with its standard error and two-sided p-value; each is None if it is not known.

    `df` are the degrees of freedom of Welch's t; None for other methods.
    """

    value: float
    stderr: float | None
    p: float | None
    method: str
    df: float | None = None

    def interval(self, *, level: float = LEVEL) -> tuple[float, float] | None:
        """Confidence interval of a Welch difference; None without degrees of freedom."""
        if self.stderr is None or self.df is None:
            return None
        half_width = t_quantile(0.5 + level / 2, self.df) * self.stderr
        return self.value - half_width, self.value + half_width


def mean_over_seeds(values: Sequence[float], *, level: float = LEVEL) -> Mean:
    """Mean with Student's t interval (n - 1 degrees of freedom). Raises ValueError for an empty list."""
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, 1, None, None, level)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    stderr = math.sqrt(variance / n)
    return Mean(mean, n, stderr, t_quantile(0.5 + level / 2, n - 1) * stderr, level)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> DifferenceEstimate:
    """Mean of b - a over shared seeds (the same latents on both sides), paired t test if n > 1."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    mean = mean_over_seeds([y - x for x, y in zip(a, b, strict=True)])
    if mean.stderr is None:
        return DifferenceEstimate(mean.mean, None, None, "one shared seed: no error")
    return DifferenceEstimate(
        mean.mean, mean.stderr, _two_sided(mean.mean, mean.stderr, mean.n - 1), f"paired t, n={mean.n}"
    )


def independent_difference(a: Sequence[float], b: Sequence[float]) -> DifferenceEstimate:
    """Difference of means of independent seeds, Welch's test; no error if a side has one seed."""
    return difference_of_means(mean_over_seeds(a), mean_over_seeds(b))


def difference_of_means(mean_a: Mean, mean_b: Mean) -> DifferenceEstimate:
    """`independent_difference` of given means."""
    value = mean_b.mean - mean_a.mean
    if mean_a.stderr is None or mean_b.stderr is None:
        return DifferenceEstimate(value, None, None, "one seed on a side: no error")
    va, vb = mean_a.stderr**2, mean_b.stderr**2
    if va + vb == 0:
        return DifferenceEstimate(value, 0.0, _two_sided(value, 0.0, 1), "Welch", 1)
    df = (va + vb) ** 2 / (va**2 / (mean_a.n - 1) + vb**2 / (mean_b.n - 1))
    stderr = math.sqrt(va + vb)
    method = f"Welch, n={mean_a.n}+{mean_b.n}"
    return DifferenceEstimate(value, stderr, _two_sided(value, stderr, df), method, df)


def difference_of_pairs(value: float, stderr: float | None, *, n: int) -> DifferenceEstimate:
    """B - A over n pairs of images that share their latents, with the standard error of that difference."""
    if stderr is None:
        return DifferenceEstimate(value, None, None, f"{n} pairs of images: no error")
    return DifferenceEstimate(value, stderr, _two_sided(value, stderr, math.inf), f"paired images, n={n:,}")


def analytic_difference(a: float, stderr_a: float, b: float, stderr_b: float) -> DifferenceEstimate:
    """Difference of two values with their own standard errors, taken as independent and normal.

    If both share latents, they are positively correlated and the error is too wide, never too narrow.
    """
    stderr = math.hypot(stderr_a, stderr_b)
    return DifferenceEstimate(b - a, stderr, _two_sided(b - a, stderr, math.inf), INDEPENDENT)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction for several comparisons; None stays None and does not count."""
    order = sorted((i for i, p in enumerate(p_values) if p is not None), key=lambda i: p_values[i])
    corrected: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(order) - rank)))
        corrected[index] = running
    return corrected


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _two_sided(value: float, stderr: float, df: float) -> float:
    if stderr == 0:
        return 1.0 if value == 0 else 0.0
    if df == math.inf:
        return math.erfc(abs(value) / stderr / math.sqrt(2))
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(value) / stderr))
