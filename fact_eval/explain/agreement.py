"""Shares with intervals, and agreement between raters: Wilson 1927, Cohen 1960, Fleiss 1971."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from statistics import fmean

LEVEL = 0.95


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a binomial share; it has a width at 0 and n successes too (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def chance_probability(successes: int, n: int, chance: float) -> float:
    """Probability of at least that many successes by guessing: one-sided exact binomial test."""
    from scipy.stats import binomtest

    return float(binomtest(successes, n, chance, alternative="greater").pvalue)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance: 1 is perfect, 0 is chance (Cohen 1960).

    None if both gave the same answer everywhere: chance then agrees as well.
    """
    n = len(first)
    counts = Counter(first), Counter(second)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    return _beyond(observed, sum(counts[0][c] * counts[1][c] for c in counts[0]) / n**2)


def mean_cohen_kappa(raters: Sequence[Sequence[Hashable]]) -> float | None:
    """Mean of Cohen's kappa over all pairs of raters; pairs without a value do not count."""
    values = [cohen_kappa(a, b) for a, b in combinations(raters, 2)]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def fleiss_kappa(raters: Sequence[Sequence[Hashable]]) -> float | None:
    """Agreement of two or more raters beyond chance, on questions that all of them answered (Fleiss 1971).

    None if all answers are equal. Raises ValueError for fewer than two raters.
    """
    if len(raters) < 2:
        raise ValueError("agreement takes two raters")
    m = len(raters)
    questions = [Counter(answers) for answers in zip(*raters, strict=True)]
    total = sum(questions, Counter())
    observed = fmean(sum(k * (k - 1) for k in q.values()) / (m * (m - 1)) for q in questions)
    return _beyond(observed, sum((k / (m * len(questions))) ** 2 for k in total.values()))


def _beyond(observed: float, expected: float) -> float | None:
    return None if math.isclose(expected, 1) else (observed - expected) / (1 - expected)
