"""A sweep: start the runs of a plan that are not finished, watch them, and say how each one ended."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fact_metrics.base.errors import UserError
from fact_metrics.base.processes import describe_error
from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.progress import CONFLICT, DIVERGED, TRAINED, Progress, read_progress
from fact_train.sweeps.worker import Outcome, Task, run_task, worker_command

LOGS = "sweep-logs"  # below the folder of runs
LOOK = 1.0  # seconds between two looks at the tasks
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Standing:
    """What is to be done with each run of a plan, before anything starts."""

    progress: dict[str, Progress]
    finished: list[PlannedRun]
    published: list[PlannedRun]  # elsewhere; nothing is done here
    due: list[PlannedRun]
    stuck: list[PlannedRun]  # diverged, or in the way of another run

    def problems(self) -> list[str]:
        """A line per stuck run."""
        return [f"{run.name}: {self.progress[run.name].why}" for run in self.stuck]


def stand(
    runs: Iterable[PlannedRun],
    *,
    is_scored: Callable[[PlannedRun], bool],
    is_published: Callable[[PlannedRun], bool] = lambda run: False,
) -> Standing:
    """Read the folders of all runs. `is_scored`: whether a trained run has all records that are wanted."""
    standing = Standing({}, [], [], [], [])
    for run in runs:
        progress = read_progress(run)
        try:
            scored = progress.state == TRAINED and is_scored(run)
        except UserError as error:
            progress, scored = Progress(CONFLICT, 0.0, str(error)), False
        standing.progress[run.name] = progress
        if scored:
            standing.finished.append(run)
        elif is_published(run):
            standing.published.append(run)
        elif progress.state in (DIVERGED, CONFLICT):
            standing.stuck.append(run)
        else:
            standing.due.append(run)
    return standing


class Watcher(Protocol):
    """What a sweep reports to."""

    def started(self, run: Any) -> None: ...

    def ended(self, run: Any, outcome: Outcome) -> None: ...

    def look(self, running: Sequence[Any]) -> None: ...


@dataclass
class Result:
    """How the tasks of a sweep ended. `signum`: the signal that stopped it, 0 without one."""

    done: list[PlannedRun] = field(default_factory=list)
    failed: list[tuple[PlannedRun, str]] = field(default_factory=list)
    stopped: list[PlannedRun] = field(default_factory=list)  # to be continued, or not started
    signum: int = 0

    @property
    def exit_code(self) -> int:
        if self.signum == signal.SIGINT:
            return 130
        if self.stopped:
            return 75
        return 1 if self.failed else 0


def run_sweep(
    due: Sequence[PlannedRun],
    executor: Executor,
    *,
    root: Path,
    metrics_of: Callable[[PlannedRun], Sequence[str]],
    watcher: Watcher,
    seconds: float | None = None,
) -> Result:
    """Run what is due. After `seconds`, or on SIGTERM or Ctrl-C, running tasks save their state and end."""

    def command(run: PlannedRun) -> tuple[str, ...]:
        return worker_command("fact_train", run.command(scored=metrics_of(run)))

    work = [
        Work(run, command(run), run.outdir.resolve(), threads_environment(run.config.threads)) for run in due
    ]
    return run_tasks(work, executor, logs=Path(root) / LOGS, watcher=watcher, seconds=seconds)


@dataclass(frozen=True)
class Work:
    """A run, or anything with a `name`, and the command that does it."""

    run: Any
    command: tuple[str, ...]
    folder: Path | None = None  # that it locks
    environment: Mapping[str, str] = field(default_factory=dict)


def run_tasks(
    work: Sequence[Work],
    executor: Executor,
    *,
    logs: Path,
    watcher: Watcher,
    seconds: float | None = None,
) -> Result:
    """Do all work; a failure stops nothing. After `seconds`, or on a signal, tasks are told to stop."""
    logs = Path(logs).resolve()
    logs.mkdir(parents=True, exist_ok=True)
    stop_file = logs / f".stop-{os.uname().nodename}-{os.getpid()}-{time.time_ns()}"
    end = None if seconds is None else time.monotonic() + seconds
    result, started = Result(), set()
    with caught_signals() as caught, executor:
        futures: dict[Future, Any] = {
            executor.submit(run_task, make_task(each, logs, stop_file)): each.run for each in work
        }
        pending = set(futures)
        try:
            while pending:
                ended, pending = wait(pending, timeout=LOOK, return_when=FIRST_COMPLETED)
                for future in ended:
                    _settle(futures[future], future, result, watcher)
                running = [run for future, run in futures.items() if future in pending and future.running()]
                for run in running:
                    if run.name not in started and not stop_file.exists():
                        started.add(run.name)
                        watcher.started(run)
                watcher.look(running)
                if not stop_file.exists() and (caught or (end is not None and time.monotonic() > end)):
                    result.signum = caught[0] if caught else 0
                    stop_file.touch()
                    for future in pending:
                        future.cancel()
        finally:
            stop_file.touch()  # an error in here must not leave tasks behind
            for future in pending:
                future.cancel()
            executor.shutdown(wait=True)
            stop_file.unlink()
    return result


def _settle(run: Any, future: Future, result: Result, watcher: Watcher) -> None:
    if future.cancelled():
        result.stopped.append(run)
        return
    if (error := future.exception()) is not None:  # of the executor, or of starting the process
        result.failed.append((run, describe_error(error)))
        return
    outcome: Outcome = future.result()
    if outcome.ok:
        result.done.append(run)
    elif outcome.stopped:
        result.stopped.append(run)
    else:
        result.failed.append((run, outcome.reason))
    if outcome.seconds:
        watcher.ended(run, outcome)


def make_task(work: Work, logs: Path, stop_file: Path, *, halt_file: Path | None = None) -> Task:
    """The task of a piece of work, for any machine that shares the disk."""
    return Task(
        name=work.run.name,
        command=work.command,
        log=logs / f"{work.run.name}.log",
        stop_file=stop_file,
        folder=work.folder,
        environment=dict(work.environment),
        cwd=Path.cwd(),
        halt_file=halt_file,
    )


def threads_environment(threads: int | None) -> dict[str, str]:
    """The variables that libraries read their number of threads from."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads or 1))


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """The signals that arrived while the block runs; a second one acts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: Mapping[int, object] = {}

    def handle(signum: int, frame: object) -> None:
        caught.append(signum)
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
