"""One scoring session of a command: device, threads, torchrun group and progress around an evaluation."""

import dataclasses
from collections.abc import Sequence

from fact_eval.jobs.plan import Job
from fact_eval.scoring.evaluation import Evaluation
from fact_eval.scoring.record import Outcome
from fact_metrics.base.devices import resolve_device
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.processes import Processes
from fact_metrics.base.progress import Progress
from fact_metrics.base.threads import settle_threads


def score(
    jobs: Sequence[Job], *, device: str, batch: int, threads: int | None, again: bool = False
) -> Outcome:
    """Evaluate jobs with progress on stderr, on `threads` CPU threads.

    None: the number is chosen (`settle_threads`). Under torchrun all ranks evaluate the jobs of rank 0.
    """
    device = str(resolve_device(device))
    keep_freed_memory()
    chosen = settle_threads(threads, device=device) if any(job.missing for job in jobs) else None
    processes = Processes.join()
    progress = Progress(quiet=processes.rank > 0)
    try:
        if chosen is not None:
            progress.note(chosen)
        jobs = share_jobs(jobs, processes)
        sources = sum(bool(job.missing) for job in jobs)
        if processes.rank == 0 and sources:
            group = f", {processes.size} processes" if processes.size > 1 else ""
            progress.note(f"scoring {sources} sources on {device}{group}")
        evaluation = Evaluation(
            device=device, batch=batch, progress=progress, again=again, processes=processes
        )
        return evaluation.run(jobs)
    finally:
        processes.leave()


def share_jobs(jobs: Sequence[Job], processes: Processes) -> list[Job]:
    """The jobs of rank 0 on every rank, with the images that this rank has opened: images are not sent."""
    pictures = {job.content_sha256: job.pictures for job in jobs}
    opened = {job.reference.name: job.reference.opened for job in jobs}
    return [
        _with_images(job, pictures.get(job.content_sha256), opened.get(job.reference.name))
        for job in processes.broadcast([_with_images(job, None, None) for job in jobs])
    ]


def _with_images(job: Job, pictures, opened) -> Job:
    return dataclasses.replace(
        job, pictures=pictures, reference=dataclasses.replace(job.reference, opened=opened)
    )
