"""Whole pieces of work in parallel on a CPU, in place of each piece on all cores.

A batch of a small network is hundreds of short operations. If each is split over the cores, each waits for
the slowest thread, and for the core that another program has; whole batches in parallel wait once, at the
end. Every worker computes with a fixed number of threads of its own, so the numbers do not depend on how many
workers there are.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import torch

from fact_metrics.base.interruption import Workers

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadPool:
    """`workers` threads, each computing on an equal share of `threads` cores; with one, the caller works.

    The threads start with the first call of `map` and end with the pool's `with` block, or with the program.
    """

    def __init__(self, workers: int, *, threads: int) -> None:
        self.workers, self.threads_each = workers, max(threads // workers, 1)
        self._executor: ThreadPoolExecutor | None = None
        if workers > 1:
            self._executor = Workers(workers, thread_name_prefix="compute", initializer=self._set_threads)

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """A worker per CPU thread of torch; on a GPU one."""
        threads = torch.get_num_threads()
        return cls(threads if device.type == "cpu" else 1, threads=threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised) -> None:
        if self._executor is not None:
            self._executor.__exit__(*raised)

    def _set_threads(self) -> None:
        torch.set_num_threads(self.threads_each)  # of this thread alone

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in the order of the items; an exception of one is raised here once all have stopped."""
        if self._executor is None or len(items) == 1:
            return [function(item) for item in items]
        futures = [self._executor.submit(function, item) for item in items]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]
