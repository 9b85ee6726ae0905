"""Prefetching: a thread computes the next items while the caller uses the current one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from fact_metrics.base.interruption import Workers

T = TypeVar("T")
R = TypeVar("R")


def prefetch(compute: Callable[[T], R], items: Iterable[T], *, depth: int = 1) -> Iterator[R]:
    """compute(item) for every item, in order; a thread computes up to `depth` items ahead of the caller.

    With depth 0 the caller's thread computes each item on demand. An exception of `compute` is raised where
    its result is due. A caller that may stop early closes the iterator, which starts no further item.
    """
    if not depth:
        yield from map(compute, items)
        return
    pending: deque[Future[R]] = deque()
    with Workers(1, thread_name_prefix="prefetch") as thread:
        try:
            for item in items:
                pending.append(thread.submit(compute, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
