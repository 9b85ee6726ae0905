"""The effect of a setting against its reference on one metric: interval, verdict, seeds still needed.

Training seeds are the sample. Tests are those of `difference_of_means` on the scale of the metric and with
the spread of its base (`Spread`), Holm-corrected over the settings of a study on the primary metric. A
difference is irrelevant if its interval lies inside the relevant difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fact_leaderboard.answers.spread import Spread
from fact_leaderboard.intervals import (
    LEVEL,
    DifferenceEstimate,
    Mean,
    Side,
    difference_of_means,
    holm,
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

    `base` and `mean` are means over `base_seeds` and `seeds` on the scale of comparison, so geometric ones of
    distances. `value` is their difference, `low` and `high` bound its 95 % interval; None with one seed on a
    side. `more_seeds` would decide an undecided verdict with a power of 80 %; None where more than MOST_SEEDS
    are needed, or nothing is known.
    """

    setting: str
    reference: str
    metric: str
    higher_is_better: bool
    verdict: str
    base: float | None = None
    base_seeds: int = 0
    mean: float | None = None
    seeds: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    more_seeds: int | None = None


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


@dataclass(frozen=True)
class Comparison:
    """A pair on the scale on which it is compared; `estimate` is None if a side has no value."""

    pair: Pair
    spread: Spread
    mean: Mean | None
    base: Mean | None
    estimate: DifferenceEstimate | None

    @classmethod
    def of(cls, pair: Pair, spread: Spread) -> "Comparison":
        """Mean of both sides and their difference."""
        mean, base = (spread.mean(side) if side else None for side in (pair.values, pair.base))
        return cls(pair, spread, mean, base, mean and base and difference_of_means(base, mean))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the scaled difference."""
        return None if self.estimate is None else self.estimate.interval()

    def shown(self, scaled: float) -> float:
        """A scaled difference in units of the metric, from the reference's mean on."""
        return self.spread.value(self.base.mean + scaled) - self.spread.value(self.base.mean)

    def bounds(self, relevant: float) -> tuple[float, float]:
        """The scaled differences that are as large as the relevant one."""
        base = self.spread.value(self.base.mean)
        low, high = (self.spread.scaled(base + change) for change in (-relevant, relevant))
        return low - self.base.mean, high - self.base.mean

    def effect(self, metric: str, higher_is_better: bool, p: float | None, verdict: str, more=None) -> Effect:
        """What is shown of it."""
        low, high = map(self.shown, self.interval) if self.interval else (None, None)
        return Effect(
            setting=self.pair.setting,
            reference=self.pair.reference,
            metric=metric,
            higher_is_better=higher_is_better,
            verdict=verdict,
            base=self.base and self.spread.value(self.base.mean),
            base_seeds=len(self.pair.base),
            mean=self.mean and self.spread.value(self.mean.mean),
            seeds=len(self.pair.values),
            value=self.estimate and self.shown(self.estimate.value),
            low=low,
            high=high,
            p=p,
            more_seeds=more,
        )


def primary_effects(
    pairs: Sequence[Pair],
    *,
    metric: str,
    higher_is_better: bool,
    relevant: float,
    spread: Spread = Spread(),
) -> list[Effect]:
    """Effects on the primary metric, Holm-corrected over the pairs."""
    found = [Comparison.of(pair, spread) for pair in pairs]
    corrected = holm([None if one.estimate is None else one.estimate.p for one in found])
    tests = max(sum(p is not None for p in corrected), 1)
    effects = []
    for one, p in zip(found, corrected, strict=True):
        verdict = _primary_verdict(one, p, higher_is_better, relevant)
        undecided = verdict == UNDECIDED and one.interval is not None
        more = seeds_to_decide(one, relevant=relevant, tests=tests) if undecided else None
        effects.append(one.effect(metric, higher_is_better, p, verdict, more))
    return effects


def other_effects(
    pairs: Sequence[Pair], *, metric: str, higher_is_better: bool, spread: Spread = Spread()
) -> list[Effect]:
    """Effects on another metric: better or worse at 5 %, uncorrected; undecided otherwise."""
    effects = []
    for pair in pairs:
        one = Comparison.of(pair, spread)
        p = None if one.estimate is None else one.estimate.p
        if one.estimate is None:
            verdict = NOT_RUN
        else:
            verdict = _direction(one.estimate.value, higher_is_better) if _significant(p) else UNDECIDED
        effects.append(one.effect(metric, higher_is_better, p, verdict))
    return effects


def seeds_to_decide(one: Comparison, *, relevant: float, tests: int) -> int | None:
    """The fewest further seeds of each side that decide with a power of 80 %; None for more than MOST_SEEDS.

    Assumes that the difference and the spreads found are the true ones, and corrects for `tests` tests.
    """
    means = (one.mean, one.base)
    variances = [mean.stderr**2 * mean.n for mean in means]
    for more in range(1, MOST_SEEDS + 1):
        sides = [Side(mean.n + more, mean.side.degrees + more) for mean in means]
        power = deciding_power(one.estimate.value, variances, sides, bounds=one.bounds(relevant), tests=tests)
        if power >= POWER:
            return more
    return None


def deciding_power(
    value: float,
    variances: Sequence[float],
    sides: Sequence[Side],
    *,
    bounds: tuple[float, float],
    tests: int,
) -> float:
    """Probability of a verdict, if `value` is the true difference and the variances of the sides are known.

    The verdict is a significant difference or one within the bounds, whichever is likelier.
    """
    parts = [variance / side.seeds for variance, side in zip(variances, sides, strict=True)]
    stderr = math.sqrt(sum(parts))
    if stderr == 0:
        return 1.0
    threshold = welch_quantile(ALPHA / tests, *sides) * stderr
    significant = _normal((abs(value) - threshold) / stderr) + _normal((-abs(value) - threshold) / stderr)
    half_width = welch_quantile(ALPHA, *sides) * stderr
    low, high = bounds[0] + half_width, bounds[1] - half_width
    inside = _normal((high - value) / stderr) - _normal((low - value) / stderr) if low < high else 0.0
    return max(significant, inside)


def _primary_verdict(one: Comparison, p: float | None, higher_is_better: bool, relevant: float) -> str:
    if one.pair.diverges or one.pair.base_diverges:
        return DIVERGES if one.pair.diverges else BASE_DIVERGES
    if one.estimate is None:
        return NOT_RUN
    low, high = one.bounds(relevant)
    if one.interval is not None and low < one.interval[0] and one.interval[1] < high:
        return SAME
    return _direction(one.estimate.value, higher_is_better) if _significant(p) else UNDECIDED


def _significant(p: float | None) -> bool:
    return p is not None and p < ALPHA


def _direction(value: float, higher_is_better: bool) -> str:
    return BETTER if (value > 0) == higher_is_better else WORSE


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
