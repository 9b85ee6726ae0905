"""How a run was trained, from its stats.jsonl and the records of its snapshots. Does not import torch."""

from collections import defaultdict
from pathlib import Path

from fact_eval.jobs.runs import STATS, read_run
from fact_leaderboard.records import RESULTS, latest_records, read_records
from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import parse_document
from fact_metrics.inputs import Tick, TrainingHistory
from fact_metrics.registry import find_spec
from fact_train.run_folder import TimedTickShape


def read_history(folder: Path, *, kimg: float, seed: int = 0) -> TrainingHistory:
    """The training up to `kimg`, with the scores of one evaluation seed.

    Raises UserError if there is no tick or one cannot be read.
    """
    snapshots = tuple(float(one.kimg) for one in read_run(folder).snapshots() if one.kimg <= kimg)
    scores: dict[str, dict[float, float]] = defaultdict(dict)
    for record in latest_records(read_records(Path(folder) / RESULTS)):
        spec = find_spec(record.metric)
        valued = record.status == "ok" and record.value is not None and record.kimg is not None
        if spec is None or not valued or record.protocol_sha256 != spec.protocol_sha256:
            continue
        if record.seed == seed and record.kimg <= kimg:
            scores[record.metric][record.kimg] = record.value
    ticks = tuple(tick for tick in read_ticks(folder) if tick.kimg // 1 <= kimg)
    if not ticks:
        raise UserError(f"{Path(folder) / STATS} holds no tick up to {kimg:g} kimg; restore it")
    return TrainingHistory(ticks, snapshots, dict(scores))


def read_ticks(folder: Path) -> list[Tick]:
    """The ticks of a run, in order. UserError if there are none or one cannot be read."""
    path = Path(folder) / STATS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    ticks: list[Tick] = []
    for line in lines:
        tick = parse_document(line, TimedTickShape, path, way_out="remove the line")
        before = ticks[-1] if ticks else Tick(0.0, 0.0)
        kimg, spikes = tick["nimg"] / 1000, tick.get("Rec/spikes", {"mean": 0.0, "num": 0})
        seconds = before.seconds + tick["Timing/sec_per_kimg"] * (kimg - before.kimg)
        ticks.append(Tick(kimg, seconds, spikes["num"], spikes["mean"] * spikes["num"]))
    if not ticks:
        raise UserError(f"{path} holds no tick yet; continue the training")
    return ticks
