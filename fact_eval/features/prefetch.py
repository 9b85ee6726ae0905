"""The next batch in the making while this one is looked at: a thread of its own, so many batches ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def made_ahead(make: Callable[[T], R], items: Iterable[T], *, ahead: int = 1) -> Iterator[R]:
    """make(item) of every item, in order; while the caller has one, a thread makes the next `ahead`.

    With 0 each is made when it is asked for, in the caller's thread. An exception of `make` is raised where
    its result is due. Whoever may stop early closes the iterator: then nothing more is begun.
    """
    if not ahead:
        yield from map(make, items)
        return
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="made ahead") as thread:
        try:
            for item in items:
                begun.append(thread.submit(make, item))
                if len(begun) > ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
