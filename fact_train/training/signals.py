"""SIGINT and SIGTERM as a wish to stop: the loop saves its state first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignal:
    """`number` of the first SIGINT or SIGTERM; 0 before it."""

    number = 0


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Catch the first signal while the block runs; a second one acts at once."""
    stop = StopSignal()
    previous = {}

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def handle(signum: int, frame: object) -> None:
        stop.number = signum
        restore()

    for signum in (signal.SIGINT, signal.SIGTERM):
        previous[signum] = signal.signal(signum, handle)
    try:
        yield stop
    finally:
        restore()
