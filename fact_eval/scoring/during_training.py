"""Metrics while training: snapshots are scored as they are saved, into the run's records like any others."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fact_eval.jobs.catalog import load_cards
from fact_eval.jobs.plan import Job, Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_metrics.base.errors import UserError


class SnapshotScorer:
    """Called after a snapshot is saved; scores those that are due and have no record yet.

    Due is the first snapshot at or after every multiple of `every_kimg` (each one for None), and the last
    one. What a killed run left unscored is due at the next call. A metric that fails is said and kept in
    `problems`; training goes on. Called by all processes of a group together.
    """

    def __init__(self, metrics: Sequence[str], *, every_kimg: float | None):
        self._request = Request(tuple(load_cards(metrics)), named=True, snapshot="all")
        self._every, self._evaluation = every_kimg, None
        self._tried: set[str] = set()  # what failed once is not tried again by this process
        self.problems: list[str] = []

    def __call__(self, folder: Path, *, device: str, say: Callable[[str], None], done: bool) -> None:
        """Score what is due in a run folder; `done`: training has ended. `say` takes lines for people."""
        from fact_eval.scoring.evaluation import agreed

        if self._evaluation is None:
            self._evaluation = _begin(device, say)
        processes = self._evaluation.processes
        jobs = []
        if processes.rank == 0:
            try:
                jobs = self._due(folder, done=done)
            except UserError as error:  # such as a broken line in the records: the training itself is well
                self._tell(str(error), say)
        for problem in self._evaluation.run(agreed(jobs, processes)).problems():
            self._tell(problem, say)
        self._evaluation.forget()

    def _due(self, folder: Path, *, done: bool) -> list[Job]:
        jobs = plan_run(read_run(folder), self._request)
        due = choose_due([job.kimg for job in jobs], self._every, done=done)
        due_jobs = [job for job in jobs if job.kimg in due and job.missing]
        jobs = [job for job in due_jobs if job.content_sha256 not in self._tried]
        self._tried.update(job.content_sha256 for job in jobs)
        return jobs

    def _tell(self, problem: str, say: Callable[[str], None]) -> None:
        say(f"not scored: {problem}")
        self.problems.append(problem)


def _begin(device: str, say: Callable[[str], None]):
    from fact_eval.features.processes import Processes
    from fact_eval.scoring.evaluation import Evaluation
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
