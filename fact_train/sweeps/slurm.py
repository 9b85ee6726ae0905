"""Tasks as a Slurm job array, by submitit. A concurrent.futures.Executor."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fact_train.sweeps.room import RETRIES, SLURM_MINUTES, Room
from fact_train.sweeps.worker import Outcome, Task

POLL = 1.0  # seconds between two looks at the jobs
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "RESIZING")
SIGNAL_SECONDS = 120  # before the end of a job's time, in which a run saves its state


class Requeued:
    """A task that saves its state and goes back to the queue where Slurm ends its job."""

    def __init__(self, fn: Callable[[Task], Outcome]) -> None:
        self.fn = fn

    def __call__(self, task: Task) -> Outcome:
        self._task = replace(task, halt_file=task.log.with_suffix(".halt"))
        self._task.halt_file.unlink(missing_ok=True)
        pool = ThreadPoolExecutor(1)  # the main thread takes the signal of the end
        self._running = pool.submit(self.fn, self._task)
        return self._running.result()

    def checkpoint(self, task: Task) -> Any:
        """submitit calls this shortly before the end and submits what it returns."""
        import submitit

        self._task.halt_file.touch()
        self._running.result()
        self._task.halt_file.unlink(missing_ok=True)
        return submitit.helpers.DelayedSubmission(Requeued(self.fn), task)


@dataclass
class _Entry:
    fn: Callable[[Task], Outcome]
    task: Task
    future: Future
    job: Any = None
    starts: int = 0


class SlurmExecutor(Executor):
    """Tasks that are submitted together make one job array.

    A task that ends with exit code 75 without being told to, and one whose node was lost, starts again. Where
    Slurm itself has put the job back into its queue (`scontrol requeue`, a lost node), nothing is submitted.
    """

    def __init__(self, room: Room, *, cluster: str) -> None:
        import submitit

        room.folder.mkdir(parents=True, exist_ok=True)
        self._submitit = submitit.AutoExecutor(folder=room.folder, cluster=cluster)
        self._submitit.update_parameters(
            name="fact",
            timeout_min=SLURM_MINUTES,
            cpus_per_task=room.threads,
            slurm_array_parallelism=room.jobs,
            slurm_signal_delay_s=SIGNAL_SECONDS,
            **({"gpus_per_node": 1} if room.on_gpu else {}),
        )
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._closing = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[[Task], Outcome], /, task: Task) -> Future:
        entry = _Entry(fn, task, Future())
        with self._lock:
            if self._closing:
                raise RuntimeError("the executor is shut down")
            self._entries.append(entry)
        return entry.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closing = True
            if cancel_futures:
                for entry in self._entries:
                    entry.future.cancel()
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        while True:
            time.sleep(POLL)
            with self._lock:
                entries, closing = list(self._entries), self._closing
            try:
                self._start([entry for entry in entries if entry.job is None])
                for entry in entries:
                    self._look(entry)
            except Exception as error:  # of sbatch or sacct: the tasks end with it
                for entry in entries:
                    self._end(entry, error=error)
            with self._lock:
                self._entries = [entry for entry in self._entries if not entry.future.done()]
                if closing and not self._entries:
                    return

    def _start(self, entries: list[_Entry]) -> None:
        entries = [entry for entry in entries if not entry.future.cancelled()]
        if not entries:
            return
        with self._submitit.batch():
            jobs = [self._submitit.submit(Requeued(entry.fn), entry.task) for entry in entries]
        for entry, job in zip(entries, jobs, strict=True):
            entry.job = job
            entry.starts += 1

    def _look(self, entry: _Entry) -> None:
        if entry.job is None:
            return
        if entry.future.cancelled():
            entry.job.cancel()
            return
        if not entry.job.done():
            if not entry.future.running() and entry.job.state == "RUNNING":
                entry.future.set_running_or_notify_cancel()
            return
        error = entry.job.exception()
        again = error is not None or (entry.job.result().stopped and not entry.task.stop_file.exists())
        if again and _is_queued(entry.job):
            return
        if again and entry.starts <= RETRIES:
            entry.job = None
        elif error is not None:
            self._end(entry, error=error)
        else:
            self._end(entry, outcome=entry.job.result())

    def _end(self, entry: _Entry, *, outcome: Outcome | None = None, error: Exception | None = None) -> None:
        if entry.future.done():
            return
        if not entry.future.running() and not entry.future.set_running_or_notify_cancel():
            return
        if error is not None:
            entry.future.set_exception(error)
        else:
            entry.future.set_result(outcome)


def _is_queued(job: Any) -> bool:
    """Whether Slurm will start the job again, or has: the result on disk is then that of an earlier start."""
    return job.get_info(mode="force").get("State") in UNFINISHED
