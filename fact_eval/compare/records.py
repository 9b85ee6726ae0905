"""Records of two models side by side: the difference of every metric with its error, Holm-corrected."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fact_leaderboard.intervals import (
    DifferenceEstimate,
    analytic_difference,
    holm,
    independent_difference,
    mean_over_seeds,
    paired_difference,
    variance_floor,
)
from fact_leaderboard.records import Record
from fact_metrics.registry import find_spec


@dataclass(frozen=True)
class Comparison:
    """One metric of A and B; `p` is Holm-corrected over all metrics, None without an error."""

    metric: str
    higher_is_better: bool
    a: float
    b: float
    difference: DifferenceEstimate
    p: float | None
    degenerate: tuple[str | None, str | None] = (None, None)  # why A's and B's value mean nothing

    @property
    def better(self) -> str:
        """`A` or `B` if the difference is significant at 5 %, else `tie`.

        Blank without an error, and if a value means nothing.
        """
        if self.p is None or any(self.degenerate):
            return ""
        if self.p >= 0.05:
            return "tie"
        return "B" if (self.difference.value > 0) == self.higher_is_better else "A"


# The difference of two records image by image, or why there is none.
ImagePairing = Callable[[Record, Record], DifferenceEstimate | str]


def compare(
    a: Sequence[Record], b: Sequence[Record], *, paired: ImagePairing | None = None
) -> tuple[list[Comparison], list[str]]:
    """Comparisons of the metrics that both sides have with one protocol and dataset; why others are left out.

    With one run a side and several shared evaluation seeds: paired over the seeds. With one shared seed:
    `paired` image by image (same latents) if possible, otherwise the metric's standard errors, taken as
    independent. With several training seeds: Welch's statistic over the means of the runs, whose spread
    never counts for less than their rounding and evaluation error. The `method` of a difference names the
    test.
    """
    sides = [_by_metric(records) for records in (a, b)]
    pairs, left_out = [], []
    for metric in sorted(sides[0].keys() | sides[1].keys()):
        if not all(metric in side for side in sides):
            left_out.append(f"{metric}: measured on one side only")
            continue
        left, right = sides[0][metric], sides[1][metric]
        if invalid := next((r.invalid for r in left + right if r.invalid), None):
            left_out.append(f"{metric}: {invalid}")
            continue
        if len({(r.metric_version, r.protocol_sha256, r.dataset["sha256"]) for r in left + right}) > 1:
            left_out.append(f"{metric}: other protocol or other images")
            continue
        pairs.append((metric, left, right))
    differences = [_difference(left, right, paired) for _, left, right in pairs]
    corrected = holm([difference.p for difference in differences])
    comparisons = [
        Comparison(
            metric,
            left[0].higher_is_better,
            _mean(left),
            _mean(right),
            difference,
            p,
            (_degenerate(left), _degenerate(right)),
        )
        for (metric, left, right), difference, p in zip(pairs, differences, corrected, strict=True)
    ]
    return comparisons, left_out


def _difference(a: list[Record], b: list[Record], paired: ImagePairing | None) -> DifferenceEstimate:
    runs_a, runs_b = _by_run(a), _by_run(b)
    spec = find_spec(a[0].metric)
    rounding = variance_floor(step=spec and spec.step)
    if len(runs_a) > 1 or len(runs_b) > 1:
        means = [
            [mean_over_seeds(list(run.values())).mean for run in runs.values()] for runs in (runs_a, runs_b)
        ]
        seeds = min(len(run) for runs in (runs_a, runs_b) for run in runs.values())
        evaluation = variance_floor(stderrs=[r.stderr for r in a + b]) / seeds
        return independent_difference(*means, floor=rounding + evaluation)
    (seeds_a,), (seeds_b,) = runs_a.values(), runs_b.values()
    shared = sorted(seeds_a.keys() & seeds_b.keys())
    if len(shared) > 1:
        return paired_difference([seeds_a[s] for s in shared], [seeds_b[s] for s in shared], floor=rounding)
    why_not = "no shared evaluation seed"
    if shared:
        a, b = ([r for r in side if r.seed == shared[0]] for side in (a, b))
        estimate = paired(a[0], b[0]) if paired else ""
        if isinstance(estimate, DifferenceEstimate):
            return estimate
        why_not = estimate
    if None in (a[0].stderr, b[0].stderr):
        return DifferenceEstimate(_mean(b) - _mean(a), None, None, "no error known")
    difference = analytic_difference(a[0].value, a[0].stderr, b[0].value, b[0].stderr, floor=rounding)
    return replace(difference, method=f"{difference.method}: {why_not}") if why_not else difference


def _degenerate(records: list[Record]) -> str | None:
    return next((r.degenerate for r in records if r.degenerate), None)


def _mean(records: list[Record]) -> float:
    """Mean over runs of the means over evaluation seeds."""
    runs = _by_run(records).values()
    return mean_over_seeds([mean_over_seeds(list(seeds.values())).mean for seeds in runs]).mean


def _by_run(records: list[Record]) -> dict[str, dict[int, float]]:
    runs: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        runs[record.run_id][record.seed] = record.value
    return runs


def _by_metric(records: Sequence[Record]) -> dict[str, list[Record]]:
    by_metric: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_metric[record.metric].append(record)
    return by_metric
