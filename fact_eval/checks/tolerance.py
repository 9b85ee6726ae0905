"""How far a value made again may be from the claimed one, and why.

From a snapshot only rounding may differ: another machine sums in another order. `ROUNDING` states by family
what that does to a value; docs/trust.md has the measurements. Training amplifies rounding, so a run trained
again on another machine is another draw from the seeds of its configuration.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fact_leaderboard.intervals import LEVEL, t_quantile
from fact_leaderboard.records import Record
from fact_metrics.spec import MetricSpec

FEWEST = 2  # degrees of freedom of a spread worth having


@dataclass(frozen=True)
class Rounding:
    """Tolerance `relative` x |value| + `images` / n + `absolute`."""

    relative: float = 0.0
    images: float = 0.0
    absolute: float = 0.0

    def tolerance(self, value: float, n: int | None) -> float:
        """Of one value from n images."""
        return self.relative * abs(value) + self.images / (n or math.inf) + self.absolute

    def reason(self) -> str:
        """In words."""
        parts = [f"{self.relative:g} of the value"] if self.relative else []
        parts += [f"{self.images:g} images over n"] if self.images else []
        parts += [f"{self.absolute:g}"] if self.absolute else []
        return "rounding on another machine: " + " + ".join(parts)


GENERAL = Rounding(relative=1e-4)
SHARES = Rounding(images=2)
FUSED = Rounding(relative=0.75)
ROUNDING = {
    **dict.fromkeys(("precision", "recall", "coverage", "reconprecision", "reconrecall"), SHARES),
    **dict.fromkeys(("legible", "reconlegible", "agreement", "density"), SHARES),
    "authpct": Rounding(images=200),  # a percentage
    "covered": Rounding(),  # a count of classes
    "modes": Rounding(absolute=2.0),  # one image read otherwise leaves a mode, and enters another
    "modekl": Rounding(images=20.0),  # two images read otherwise: each moves log(n) / n at most
    "kid": Rounding(relative=1e-3, absolute=1e-6),  # near 0, float32 products remain
    "sharpness": Rounding(relative=1e-4, absolute=1e-5),  # near 0, the logarithm of a ratio
    "ppl": Rounding(relative=2e-3),  # steps of 1e-4 in float32 images
    "fused": FUSED,  # itself made of rounding errors
}
DECIBELS = Rounding(absolute=6.0)  # a factor of two in a rounding error


def from_snapshot(spec: MetricSpec, record: Record) -> tuple[float, str]:
    """Tolerance and reason of a value from the same snapshot."""
    rounding = DECIBELS if spec.name == "fused1k_psnr" else ROUNDING.get(spec.family, GENERAL)
    counts = [n for n in (record.n_effective, record.n_real) if n]
    n = min(counts, default=None)
    return rounding.tolerance(record.value, n), rounding.reason()


def from_training(
    record: Record, found: float, known: Iterable[Record], *, of: int = 1
) -> tuple[float | None, str]:
    """Tolerance and reason of a value from training the configuration again; None if no spread is known.

    Two draws from the training seeds of one configuration differ by less in 95 % of runs, with `of` values
    of each (Bonferroni). The spread is relative, pooled over the configurations that `known` published
    records measured in the same way; that of the record's own configuration includes `found`. The claimed
    value does not count: it may be wrong.
    """
    values = seed_values(record, known)
    values[record.config_sha256] = [found, *values.get(record.config_sha256, [])]
    groups = [group for group in values.values() if len(group) > 1 and sum(group)]
    relative = [[value * len(group) / sum(group) for value in group] for group in groups]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom < FEWEST:
        return None, "no spread of training seeds is known; publish more seeds of this configuration"
    squares = sum((x - 1) ** 2 for group in relative for x in group)
    share = t_quantile(1 - (1 - LEVEL) / 2 / of, freedom) * math.sqrt(2 * squares / freedom)
    seeds = sum(map(len, groups))
    return share * abs(found), (
        f"{share:.0%} of the value: {LEVEL:.0%} of the differences of two training seeds, from {seeds} seeds "
        f"of {len(groups)} configurations"
    )


def seed_values(record: Record, known: Iterable[Record]) -> dict[str | None, list[float]]:
    """Values by configuration that were measured like the record, without the record's own run."""

    def how(r: Record) -> tuple:
        return r.metric, r.metric_version, r.protocol_sha256, r.seed, r.source, r.dataset.get("sha256")

    values: dict[str | None, dict[str, float]] = {}
    for r in known:
        if how(r) != how(record) or r.value is None or r.run_id == record.run_id:
            continue
        if r.config_sha256 != record.config_sha256 or r.kimg == record.kimg:
            values.setdefault(r.config_sha256, {})[r.run_id] = r.value
    return {config: list(runs.values()) for config, runs in values.items()}
