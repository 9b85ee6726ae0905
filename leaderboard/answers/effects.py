"""The effect of a setting against its reference on one metric: interval, verdict, seeds still needed.

Training seeds are the sample. Tests are those of `difference_of_means`, Holm-corrected over the settings of a
study on the primary metric. A difference is irrelevant if its interval lies inside the relevant difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fact_leaderboard.intervals import (
    LEVEL,
    DifferenceEstimate,
    Mean,
    difference_of_means,
    holm,
    mean_over_seeds,
    t_quantile,
    welch_quantile,
)

BETTER, WORSE = "better", "worse"
SAME = "no relevant difference"
UNDECIDED = "undecided"
DIVERGES, BASE_DIVERGES = "diverges", "its reference diverges"
NOT_RUN = "not run"
DECIDED = (BETTER, WORSE, SAME, DIVERGES, BASE_DIVERGES)
ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 50  # more than this many further seeds are not worth naming


@dataclass(frozen=True)
class Effect:
    """Setting less reference on one metric; `p` is corrected on the primary metric.

    `low` and `high` bound the 95 % interval; None with one seed on a side. `more_seeds` would decide an
    undecided verdict with a power of 80 %; None where more than MOST_SEEDS are needed, or nothing is known.
    """

    setting: str
    reference: str
    metric: str
    higher_is_better: bool
    base: Mean | None
    mean: Mean | None
    difference: DifferenceEstimate | None
    p: float | None
    verdict: str
    more_seeds: int | None = None

    @property
    def low(self) -> float | None:
        return None if self._interval is None else self._interval[0]

    @property
    def high(self) -> float | None:
        return None if self._interval is None else self._interval[1]

    @property
    def _interval(self) -> tuple[float, float] | None:
        return None if self.difference is None else self.difference.interval()


@dataclass(frozen=True)
class Pair:
    """The values of a setting and of its reference, one a training seed.

    `diverges`, `base_diverges`: more than half of the runs of that side diverged.
    """

    setting: str
    reference: str
    values: Sequence[float]
    base: Sequence[float]
    diverges: bool = False
    base_diverges: bool = False


def primary_effects(
    pairs: Sequence[Pair], *, metric: str, higher_is_better: bool, relevant: float
) -> list[Effect]:
    """Effects on the primary metric, Holm-corrected over the pairs."""
    differences = [_difference(pair) for pair in pairs]
    corrected = holm([None if d is None else d.p for d in differences])
    tests = max(sum(p is not None for p in corrected), 1)
    effects = []
    for pair, difference, p in zip(pairs, differences, corrected, strict=True):
        verdict = _primary_verdict(pair, difference, p, higher_is_better, relevant)
        more = None
        if verdict == UNDECIDED and difference is not None and difference.stderr is not None:
            more = seeds_to_decide(difference.value, pair.values, pair.base, relevant=relevant, tests=tests)
        effects.append(_effect(pair, metric, higher_is_better, difference, p, verdict, more))
    return effects


def other_effects(pairs: Sequence[Pair], *, metric: str, higher_is_better: bool) -> list[Effect]:
    """Effects on another metric: better or worse at 5 %, uncorrected; undecided otherwise."""
    effects = []
    for pair in pairs:
        difference = _difference(pair)
        p = None if difference is None else difference.p
        if difference is None:
            verdict = NOT_RUN
        else:
            verdict = _direction(difference.value, higher_is_better) if _significant(p) else UNDECIDED
        effects.append(_effect(pair, metric, higher_is_better, difference, p, verdict, None))
    return effects


def seeds_to_decide(
    value: float, values: Sequence[float], base: Sequence[float], *, relevant: float, tests: int
) -> int | None:
    """The fewest further seeds of each side that decide with a power of 80 %; None for more than MOST_SEEDS.

    Assumes that the difference and the spreads found are the true ones, and corrects for `tests` tests.
    """
    spreads = [_variance(values), _variance(base)]
    for more in range(1, MOST_SEEDS + 1):
        counts = [len(values) + more, len(base) + more]
        if deciding_power(value, spreads, counts, relevant=relevant, tests=tests) >= POWER:
            return more
    return None


def deciding_power(
    value: float, variances: Sequence[float], counts: Sequence[int], *, relevant: float, tests: int
) -> float:
    """Probability of a verdict, if `value` is the true difference and the variances of the sides are known.

    The verdict is a significant difference or an irrelevant one, whichever is likelier.
    """
    parts = [variance / n for variance, n in zip(variances, counts, strict=True)]
    stderr = math.sqrt(sum(parts))
    if stderr == 0:
        return 1.0
    threshold = welch_quantile(ALPHA / tests, *counts) * stderr
    significant = _normal((abs(value) - threshold) / stderr) + _normal((-abs(value) - threshold) / stderr)
    room = relevant - welch_quantile(ALPHA, *counts) * stderr
    irrelevant = _normal((room - value) / stderr) - _normal((-room - value) / stderr) if room > 0 else 0.0
    return max(significant, irrelevant)


def predictive_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more training seed falls with a probability of 95 %, if normal; None for one seed."""
    if len(values) < 2:
        return None
    mean = mean_over_seeds(values)
    spread = math.sqrt(_variance(values) * (1 + 1 / mean.n))
    half_width = t_quantile(0.5 + LEVEL / 2, mean.n - 1) * spread
    return mean.mean - half_width, mean.mean + half_width


def _difference(pair: Pair) -> DifferenceEstimate | None:
    if not pair.values or not pair.base:
        return None
    return difference_of_means(mean_over_seeds(pair.base), mean_over_seeds(pair.values))


def _primary_verdict(
    pair: Pair,
    difference: DifferenceEstimate | None,
    p: float | None,
    higher_is_better: bool,
    relevant: float,
) -> str:
    if pair.diverges or pair.base_diverges:
        return DIVERGES if pair.diverges else BASE_DIVERGES
    if difference is None:
        return NOT_RUN
    interval = difference.interval()
    if interval is not None and -relevant < interval[0] and interval[1] < relevant:
        return SAME
    return _direction(difference.value, higher_is_better) if _significant(p) else UNDECIDED


def _effect(pair: Pair, metric, higher_is_better, difference, p, verdict, more) -> Effect:
    return Effect(
        setting=pair.setting,
        reference=pair.reference,
        metric=metric,
        higher_is_better=higher_is_better,
        base=mean_over_seeds(pair.base) if pair.base else None,
        mean=mean_over_seeds(pair.values) if pair.values else None,
        difference=difference,
        p=p,
        verdict=verdict,
        more_seeds=more,
    )


def _significant(p: float | None) -> bool:
    return p is not None and p < ALPHA


def _direction(value: float, higher_is_better: bool) -> str:
    return BETTER if (value > 0) == higher_is_better else WORSE


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
