"""A crew of threads for the micro-batches of one step: the way a CPU is kept busy.

A micro-batch of a small network is thousands of short operations. Split over the cores one by one, each
waits for the slowest thread; whole micro-batches side by side wait once a phase. Every worker computes with
a fixed number of threads of its own, so the numbers do not depend on how many work at a time.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """`workers` threads, each computing on an equal share of `threads` cores; one worker is the caller."""

    def __init__(self, workers: int, *, threads: int) -> None:
        self.workers, self.threads_each = workers, max(threads // workers, 1)
        self._pool = None
        if workers > 1:
            self._pool = ThreadPoolExecutor(
                workers, thread_name_prefix="micro-batch", initializer=self._set_threads
            )

    def _set_threads(self) -> None:
        torch.set_num_threads(self.threads_each)  # of this thread alone

    def describe(self) -> str:
        each = "1 thread" if self.threads_each == 1 else f"{self.threads_each} threads"
        return f"{self.workers} micro-batch{'es' * (self.workers > 1)} at a time on {each} each"

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in the order of the items; an exception of one is raised here once all have stopped."""
        if self._pool is None or len(items) == 1:
            return [function(item) for item in items]
        futures = [self._pool.submit(function, item) for item in items]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]
