"""EXECUTORS: where the tasks of a sweep run. Each entry opens a concurrent.futures.Executor."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

from fact_metrics.base.errors import unknown_name


def open_local(jobs: int) -> Executor:
    """This machine: `jobs` processes at a time, each started and awaited by a thread."""
    return ThreadPoolExecutor(jobs)


EXECUTORS: dict[str, Callable[[int], Executor]] = {"local": open_local}


def check_executor(name: str) -> None:
    """UsageError for an unknown name."""
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)


def open_executor(name: str, jobs: int) -> Executor:
    """The executor of this name with room for `jobs` tasks at a time."""
    check_executor(name)
    return EXECUTORS[name](jobs)


def default_jobs(threads: int | None) -> int:
    """As many tasks of `threads` threads as this machine has cores for; None takes all cores."""
    cores = len(os.sched_getaffinity(0))
    return max(cores // (threads or cores), 1)
