"""A thread pool that runs the micro-batches of one step in parallel on a CPU.

A micro-batch of a small network is thousands of short operations. If each is split over the cores, each waits
for the slowest thread; whole micro-batches in parallel wait once a phase. Every worker computes with a
fixed number of threads of its own, so the numbers do not depend on how many workers there are.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatchPool:
    """`workers` threads, each computing on an equal share of `threads` cores; one worker is the caller."""

    def __init__(self, workers: int, *, threads: int) -> None:
        self.workers, self.threads_each = workers, max(threads // workers, 1)
        self._executor = None
        if workers > 1:
            self._executor = ThreadPoolExecutor(
                workers, thread_name_prefix="micro-batch", initializer=self._set_threads
            )

    def _set_threads(self) -> None:
        torch.set_num_threads(self.threads_each)  # of this thread alone

    def describe(self) -> str:
        """How many micro-batches run at a time, on how many threads each."""
        each = "1 thread" if self.threads_each == 1 else f"{self.threads_each} threads"
        return f"{self.workers} micro-batch{'es' * (self.workers > 1)} at a time on {each} each"

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in the order of the items; an exception of one is raised here once all have stopped."""
        if self._executor is None or len(items) == 1:
            return [function(item) for item in items]
        futures = [self._executor.submit(function, item) for item in items]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]
