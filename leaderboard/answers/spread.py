"""How far the training seeds of a configuration lie apart, on the scale on which they are compared.

Three seeds say little about their own spread. All configurations of a base say much about it: their
variances are draws from one distribution, whose centre and width are estimated. A variance then counts its
own seeds and as many degrees of freedom of the centre as the width supports: none if configurations differ
widely in spread, all if they do not differ. The method is that of Smyth 2004 (limma), Stat. Appl. Genet. Mol.
Biol. 3(1):3.

Distances vary in proportion to their size: of two configurations with a FID of 10 and 100 the second one has
ten times the spread. Their logarithms have one spread, so ratios are compared. Shares vary less the nearer
they are to 0 or 1; their log-odds have about one spread, so odds are compared (`MetricSpec.scale`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fact_leaderboard.intervals import LEVEL, Mean, mean_over_seeds, t_quantile
from fact_metrics.spec import MetricSpec, Scale

FEWEST = 5  # configurations that tell a distribution of variances
OUTLIER = 0.01


@dataclass(frozen=True)
class Pool:
    """What configurations of a base have in common.

    variance: of a typical one. degrees: what it is worth beside the seeds of one configuration; infinite if
    all have one spread. total: degrees of freedom of them together. configurations: how many there are.
    """

    variance: float
    degrees: float
    total: float
    configurations: int

    @classmethod
    def of(cls, samples: Iterable[Sequence[float]]) -> "Pool | None":
        """From the seeds of each configuration; None for fewer than FEWEST with a spread."""
        import numpy as np
        from scipy.special import digamma, polygamma

        known = [(variance(own), len(own) - 1) for own in samples if len(own) > 1]
        known = [(own, degrees) for own, degrees in known if own > 0]
        if len(known) < FEWEST:
            return None
        variances, degrees = np.array(known).T
        total = float(degrees.sum())
        logs = np.log(variances) - digamma(degrees / 2) + np.log(degrees / 2)
        excess = float(logs.var(ddof=1) - polygamma(1, degrees / 2).mean())
        if excess <= 0:  # not more apart than variances of one spread are
            return cls(float(variances @ degrees) / total, math.inf, total, len(known))
        half = _inverse_trigamma(excess)
        centre = math.exp(float(logs.mean()) + float(digamma(half)) - math.log(half))
        return cls(centre, 2 * half, total, len(known))

    def of_values(self, values: Sequence[float]) -> tuple[float, float]:
        """Variance of the values, drawn towards that of the pool, and its degrees of freedom.

        Values that lie farther apart than the pool allows (1 %, F test) speak for themselves.
        """
        from scipy.special import fdtrc

        own, seeds = variance(values), len(values) - 1
        if own > self.variance and fdtrc(seeds, min(self.degrees, self.total), own / self.variance) < OUTLIER:
            return own, seeds
        degrees = min(self.degrees + seeds, self.total)
        if math.isinf(self.degrees):
            return self.variance, degrees
        return (self.degrees * self.variance + seeds * own) / (self.degrees + seeds), degrees


@dataclass(frozen=True)
class Spread:
    """The scale on which a metric is compared, and the pool of its base; None: seeds speak for themselves.

    `half` is half of the distance between neighbouring shares: it keeps the odds of 0 and 1 finite.
    """

    scale: Scale = "difference"
    pool: Pool | None = None
    half: float = 0.0

    @classmethod
    def of(cls, samples: Iterable[Sequence[float]], spec: MetricSpec) -> "Spread":
        """Of a metric's values in each configuration; differences if a value does not fit the scale."""
        samples = [list(own) for own in samples]
        alone = cls(spec.scale, half=(spec.step or 0.0) / 2)
        if not all(math.isfinite(alone.scaled(value)) for own in samples for value in own):
            alone = cls()
        return replace(alone, pool=Pool.of([list(map(alone.scaled, own)) for own in samples]))

    def scaled(self, value: float) -> float:
        """A value on the scale of comparison; infinite from the end of the scale on."""
        if self.scale == "difference":
            return value
        low = value + self.half if self.scale == "odds" else value
        high = 1 - value + self.half if self.scale == "odds" else 1.0
        if low <= 0:
            return -math.inf
        return math.log(low / high) if high > 0 else math.inf

    def value(self, scaled: float) -> float:
        """The metric's value of a scaled one."""
        if self.scale == "difference":
            return scaled
        if self.scale == "ratio":
            return math.exp(min(scaled, 700.0))
        share = 1 / (1 + math.exp(min(-scaled, 700.0)))
        return share * (1 + 2 * self.half) - self.half

    def mean(self, values: Sequence[float]) -> Mean:
        """The scaled mean, and its error by the pool. ValueError for no values."""
        scaled = list(map(self.scaled, values))
        plain = mean_over_seeds(scaled)
        if self.pool is None or plain.n == 1:
            return plain
        variance, degrees = self.pool.of_values(scaled)
        stderr = math.sqrt(variance / plain.n)
        half_width = t_quantile(0.5 + LEVEL / 2, degrees) * stderr
        return Mean(plain.mean, plain.n, stderr, half_width, degrees=degrees)

    def predictive_interval(self, values: Sequence[float]) -> tuple[float, float] | None:
        """Where one more training seed falls with a probability of 95 %; None for one seed."""
        if len(values) < 2:
            return None
        centre = self.mean(values)
        if centre.half_width is None:
            return self.value(centre.mean), self.value(centre.mean)
        half_width = centre.half_width * math.sqrt(centre.n + 1)
        return self.value(centre.mean - half_width), self.value(centre.mean + half_width)


def variance(values: Sequence[float]) -> float:
    """Sample variance, of at least two values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _inverse_trigamma(value: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return math.exp(brentq(lambda x: math.log(polygamma(1, math.exp(x)) / value), -30.0, 30.0))
