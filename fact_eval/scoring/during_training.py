"""Scoring during training: snapshots are scored when they are saved, into the records of the run."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fact_eval.jobs.plan import Job, Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_metrics.base.errors import UserError
from fact_metrics.registry import get_specs


class SnapshotScorer:
    """Called after a snapshot is saved; scores the snapshots that are due and have no record yet.

    Due are the last snapshot and the first one at or after every multiple of `every_kimg` (None: all). A call
    also scores what a killed run left unscored. A metric that fails is reported and added to `problems`;
    training continues. All ranks call this together.
    """

    def __init__(self, metrics: Sequence[str], *, every_kimg: float | None):
        self._request = Request(tuple(get_specs(metrics)), named=True, snapshot="all")
        self._every, self._evaluation = every_kimg, None
        self._tried: set[str] = set()  # snapshots; a failure is not retried by this process
        self.problems: list[str] = []

    def __call__(self, folder: Path, *, device: str, say: Callable[[str], None], done: bool) -> None:
        """Score what is due in a run folder; `done`: training has ended. `say` prints a line."""
        from fact_eval.scoring.session import share_jobs

        if self._evaluation is None:
            self._evaluation = _start_evaluation(device, say)
        processes = self._evaluation.processes
        jobs = []
        if processes.rank == 0:
            try:
                jobs = self._due(folder, done=done)
            except UserError as error:  # such as a broken line in the records: training can continue
                self._report(str(error), say)
        for problem in self._evaluation.run(share_jobs(jobs, processes)).problems():
            self._report(problem, say)
        self._evaluation.clear()

    def _due(self, folder: Path, *, done: bool) -> list[Job]:
        jobs = plan_run(read_run(folder), self._request)
        due = choose_due([job.kimg for job in jobs], self._every, done=done)
        due_jobs = [job for job in jobs if job.kimg in due and job.missing]
        jobs = [job for job in due_jobs if job.content_sha256 not in self._tried]
        self._tried.update(job.content_sha256 for job in jobs)
        return jobs

    def _report(self, problem: str, say: Callable[[str], None]) -> None:
        say(f"not scored: {problem}")
        self.problems.append(problem)


def _start_evaluation(device: str, say: Callable[[str], None]):
    from fact_eval.scoring.evaluation import Evaluation
    from fact_metrics.base.processes import Processes
    from fact_metrics.base.progress import Progress

    progress = Progress(quiet=True)
    progress.note = say
    return Evaluation(device=device, progress=progress, processes=Processes.join())


def choose_due(kimgs: Sequence[float], every: float | None, *, done: bool) -> set[float]:
    """The first of the ascending `kimgs` at or after each multiple of `every` above 0; the last if `done`."""
    due = {kimgs[-1]} if done and kimgs else set()
    before = 0.0
    for kimg in kimgs:
        if every is None or kimg // every > before // every:
            due.add(kimg)
        before = kimg
    return due
