"""One function over many images, in threads: Pillow releases the interpreter while it decodes and resizes."""

import os
from collections.abc import Callable
from typing import TypeVar

from fact_metrics.base.interruption import Workers

ProgressCallback = Callable[[int, int], None]  # called with (images done, images in all)
Result = TypeVar("Result")

MAX_THREADS = 16  # with more, threads wait for the interpreter's lock
MAX_BLOCK = 64  # images per task: with one small image each, half the time is overhead


def for_each_image(
    function: Callable[[int], Result], count: int, progress: ProgressCallback | None = None
) -> list[Result]:
    """[function(0), ..., function(count - 1)]; the first exception (or Ctrl-C) cancels the rest."""
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    block = max(1, min(MAX_BLOCK, count // (4 * threads)))

    def run(start: int) -> list[Result]:
        return [function(position) for position in range(start, min(start + block, count))]

    results = []
    with Workers(threads) as pool:
        for block_results in pool.map(run, range(0, count, block)):
            results += block_results
            if progress is not None:
                progress(len(results), count)
    return results
