"""The second call of `fact-eval all` on 50 finished runs: it must find that nothing is left to do, and fast.

`python -m benchmarks again`. Untrained networks of the preset mnist-stylegan2, a folder each, and the records
of a published run under their names (a finished run's records are only read). Wall and processor time of the
whole command, interpreter start included: the first says also what else ran on the machine.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoints import PRESET, untrained_run
from fact_eval.jobs.runs import choose_snapshots, read_run
from fact_leaderboard.publish import published_records
from fact_leaderboard.records import RESULTS, Record, append_records

RUNS, CALLS = 50, 5


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, runs: int = RUNS
) -> dict[str, Any]:
    """Wall and processor seconds of the calls after the first."""
    records = _published_run()
    with tempfile.TemporaryDirectory(prefix="again-") as name:
        root = Path(name) / "runs"
        root.mkdir()
        for seed in range(runs):
            _finish(untrained_run(root / f"seed{seed}", seed), records)
        before = _results(root)
        environment = {**os.environ, "FACT_CACHE": str(Path(name) / "cache")}
        command = [sys.executable, "-m", "fact_eval", "all", str(root), "--protocol", "embedded"]
        first, *later = [_call(command, environment) for _ in range(1 + CALLS)]
        if _results(root) != before:
            raise RuntimeError("the calls changed records")
    return {
        "runs": runs,
        "records": runs * len(records),
        "first_seconds": first[0],
        "seconds": [wall for wall, _ in later],
        "cpu_seconds": [cpu for _, cpu in later],
    }


def table(result: dict[str, Any]) -> str:
    """Seconds of the calls, as Markdown."""
    spans = [result["seconds"], result["cpu_seconds"]]
    wall, cpu = (f"{median(span):.2f} ({min(span):.2f} - {max(span):.2f})" for span in spans)
    return (
        "| finished runs | records | `fact-eval all`, wall s: median (lowest - highest) | processor s |\n"
        "|---|---|---|---|\n"
        f"| {result['runs']} | {result['records']:,} | {wall} | {cpu} |"
    )


def _published_run() -> list[Record]:
    """The newest published records of one run of the preset, one per metric of its board."""
    by_run: dict[str, list[Record]] = {}
    for record in published_records():
        if record.training.get("preset") == PRESET and record.seed == 0:
            by_run.setdefault(record.run_id, []).append(record)
    return max(by_run.values(), key=len)


def _finish(folder: Path, records: list[Record]) -> None:
    """Give a run the records, as if they were of its newest snapshot."""
    run = read_run(folder)
    (snapshot,) = choose_snapshots(run, "latest")
    mine = {
        "run_id": run.run_id,
        "label": run.label,
        "snapshot": snapshot.path.name,
        "snapshot_sha256": snapshot.sha256(),
        "train_seed": run.options["seed"],
        "config_sha256": run.options["config_sha256"],
        "dataset": run.options["dataset"],
    }
    append_records(folder / RESULTS, [dataclasses.replace(record, **mine) for record in records])


def _results(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob(RESULTS)}


def _call(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of a call that finds nothing to do."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode or "nothing left to do" not in done.stderr:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
    return wall, cpu
