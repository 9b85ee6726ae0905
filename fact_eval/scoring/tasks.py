"""Scoring runs as tasks of an executor: one `fact-eval run` per run folder."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fact_eval.jobs.plan import Job
from fact_train.sweeps.sweep import LOGS, Result, Work, run_tasks, threads_environment
from fact_train.sweeps.worker import worker_command


@dataclass(frozen=True)
class Scored:
    """A run folder and the metrics that it lacks on some snapshot or seed."""

    folder: Path
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"score-{self.folder.name}"

    def command(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """`fact-eval run` for these metrics; `arguments` are the options that all runs share."""
        metrics = f"--metrics={','.join(self.metrics)}"
        return worker_command("fact_eval", ["run", str(self.folder), metrics, *arguments])


def split_jobs(jobs: Sequence[Job]) -> tuple[list[Scored], list[Job]]:
    """The runs with missing records, and the jobs that are no runs."""
    metrics: dict[Path, list[str]] = defaultdict(list)
    for job in jobs:
        if job.source == "run" and job.missing:
            metrics[job.results.parent] += [spec.name for spec, _ in job.missing]
    runs = [Scored(folder, tuple(dict.fromkeys(names))) for folder, names in metrics.items()]
    return runs, [job for job in jobs if job.source != "run"]


def score_on_executor(
    runs: Sequence[Scored],
    executor: str,
    root: Path,
    *,
    arguments: Sequence[str],
    device: str,
    threads: int | None,
    jobs: int | None,
) -> Result:
    """Score the runs, `jobs` at a time, on the executor of this name."""
    from fact_train.sweeps.display import Lines
    from fact_train.sweeps.executors import open_executor
    from fact_train.sweeps.room import find_room

    room = find_room(executor, root, devices={device}, threads=threads or 1, jobs=jobs)
    environment = threads_environment(threads)
    work = [Work(run, run.command(arguments), environment=environment) for run in runs]
    return run_tasks(
        work,
        open_executor(executor, room),
        logs=Path(root) / LOGS,
        watcher=Lines(total=len(runs), finished=0),
    )
