"""Two models side by side: the difference of every metric with its error, corrected for many comparisons."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fact_leaderboard.intervals import (
    Difference,
    analytic_difference,
    holm,
    independent_difference,
    mean_over_seeds,
    paired_difference,
)
from fact_leaderboard.records import Record, find_results, latest_records, read_records
from fact_metrics.base.errors import UsageError, UserError


@dataclass(frozen=True)
class Comparison:
    """One metric of A and B; `p` is Holm-corrected over all metrics, None where no error can be had."""

    metric: str
    higher_is_better: bool
    a: float
    b: float
    difference: Difference
    p: float | None

    @property
    def better(self) -> str:
        """`A` or `B` where the difference is significant at 5 %, else `tie`; blank without an error."""
        if self.p is None:
            return ""
        if self.p >= 0.05:
            return "tie"
        return "B" if (self.difference.value > 0) == self.higher_is_better else "A"


# The difference of two records image by image, or why there is none.
Paired = Callable[[Record, Record], Difference | str]


def compare(
    a: Sequence[Record], b: Sequence[Record], *, paired: Paired | None = None
) -> tuple[list[Comparison], list[str]]:
    """Comparisons of the metrics that both sides have in one protocol and dataset; why others are left out.

    One run on each side: paired over several shared evaluation seeds; for one, `paired` image by image (the
    same latents) where that can be had, or by the metric's own standard errors, taken as independent.
    Several training seeds on both sides: Welch's test over the runs' means. Every difference says which.
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
        Comparison(metric, left[0].higher_is_better, _mean(left), _mean(right), difference, p)
        for (metric, left, right), difference, p in zip(pairs, differences, corrected, strict=True)
    ]
    return comparisons, left_out


def compare_folders(a: Path, b: Path) -> tuple[list[Comparison], list[str]]:
    """`compare` of the records under two folders, of the newest snapshot of each run.

    UsageError for a missing folder; UserError where one has no number.
    """
    from fact_eval.compare.paired import PairedImages

    return compare(_newest(a), _newest(b), paired=PairedImages().difference)


def _newest(folder: Path) -> list[Record]:
    if not Path(folder).is_dir():
        raise UsageError(f"{folder} is not a folder; give a run folder or a folder of runs")
    found = [r for path in find_results(folder) for r in latest_records(read_records(path))]
    found = [r for r in found if r.value is not None and r.source in ("run", "images")]
    if not found:
        raise UserError(f"{folder} has no records; fact-eval all {folder} writes them")
    kimg = {r.run_id: max(o.kimg or 0 for o in found if o.run_id == r.run_id) for r in found}
    return [r for r in found if (r.kimg or 0) == kimg[r.run_id]]


def _difference(a: list[Record], b: list[Record], paired: Paired | None) -> Difference:
    runs_a, runs_b = _by_run(a), _by_run(b)
    if len(runs_a) > 1 or len(runs_b) > 1:
        means = [
            [mean_over_seeds(list(run.values())).mean for run in runs.values()] for runs in (runs_a, runs_b)
        ]
        return independent_difference(*means)
    (seeds_a,), (seeds_b,) = runs_a.values(), runs_b.values()
    shared = sorted(seeds_a.keys() & seeds_b.keys())
    if len(shared) > 1:
        return paired_difference([seeds_a[s] for s in shared], [seeds_b[s] for s in shared])
    why_not = "no shared evaluation seed"
    if shared:
        a, b = ([r for r in side if r.seed == shared[0]] for side in (a, b))
        found = paired(a[0], b[0]) if paired else ""
        if isinstance(found, Difference):
            return found
        why_not = found
    if None in (a[0].stderr, b[0].stderr):
        return Difference(_mean(b) - _mean(a), None, None, "no error known")
    difference = analytic_difference(a[0].value, a[0].stderr, b[0].value, b[0].stderr)
    return replace(difference, method=f"{difference.method}: {why_not}") if why_not else difference


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
