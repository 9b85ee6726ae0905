"""Compares the records under two folders, image by image if their features are stored."""

from pathlib import Path

from fact_eval.compare.paired import PairedImages
from fact_eval.compare.records import Comparison, compare
from fact_leaderboard.records import Record, find_results, latest_records, read_records
from fact_metrics.base.errors import UsageError, UserError


def compare_folders(a: Path, b: Path) -> tuple[list[Comparison], list[str]]:
    """`compare` of the records under two folders, of the newest snapshot of each run.

    UsageError for a missing folder; UserError if a folder has no values.
    """
    for folder in (a, b):
        if not Path(folder).is_dir():
            raise UsageError(f"{folder} is not a folder; give a run folder or a folder of runs")
    return compare(_newest(a), _newest(b), paired=PairedImages().difference)


def _newest(folder: Path) -> list[Record]:
    records = [r for path in find_results(folder) for r in latest_records(read_records(path))]
    records = [r for r in records if r.value is not None and r.source in ("run", "imported", "images")]
    if not records:
        raise UserError(f"{folder} has no records; fact-eval all {folder} writes them")
    newest_kimg: dict[str, float] = {}
    for r in records:
        newest_kimg[r.run_id] = max(r.kimg or 0, newest_kimg.get(r.run_id, 0))
    return [r for r in records if (r.kimg or 0) == newest_kimg[r.run_id]]
