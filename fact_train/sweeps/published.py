"""Runs whose records are published already: nobody has to train them again. No torch."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from fact_leaderboard.publish import published_records
from fact_train.sweeps.plan import PlannedRun

Key = tuple[str, int, int]  # configuration hash, thousand images of the snapshot, training seed


def published_check(
    metrics_of: Callable[[PlannedRun], Sequence[str]], results: Path | None = None
) -> Callable[[PlannedRun], bool]:
    """Whether a run has published records: of each of its metrics, or any if no metric is asked for."""
    published: dict[Key, set[str]] = {}
    for record in published_records(results):
        if record.source == "run" and record.status == "ok" and record.kimg is not None:
            key = (record.config_sha256, int(record.kimg), record.train_seed)
            published.setdefault(key, set()).add(record.metric)

    def is_published(run: PlannedRun) -> bool:
        key = (run.config.sha256(), _last_kimg(run), run.seed)
        return key in published and published[key] >= set(metrics_of(run))

    return is_published


def _last_kimg(run: PlannedRun) -> int:
    """The number in the name of the last snapshot: training ends with a whole step."""
    target, batch = round(run.config.kimg * 1000), run.config.batch
    return math.ceil(target / batch) * batch // 1000
