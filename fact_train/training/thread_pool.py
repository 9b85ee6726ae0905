"""Micro-batches of one step in parallel on a CPU."""

from fact_metrics.base.thread_pool import ThreadPool


class MicroBatchPool(ThreadPool):
    """A pool whose items are the micro-batches of a phase."""

    def describe(self) -> str:
        """How many micro-batches run at a time, on how many threads each."""
        each = "1 thread" if self.threads_each == 1 else f"{self.threads_each} threads"
        return f"{self.workers} micro-batch{'es' * (self.workers > 1)} at a time on {each} each"
