"""Signals end a program within seconds, whatever its threads wait for."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

# Exit codes: Ctrl-C, and SIGTERM as batch systems send it.
INTERRUPTED, STOPPED = 130, 75


class Workers(ThreadPoolExecutor):
    """Threads for the length of a block. After a signal the block does not wait for them.

    A thread may hang for ever: in a read from a network disk that went away, for instance.
    """

    def __exit__(self, kind, error, trace) -> bool:
        interrupted = kind is not None and not issubclass(kind, Exception | GeneratorExit)
        self.shutdown(wait=not interrupted, cancel_futures=kind is not None)
        return False


def exit_now(code: int) -> NoReturn:
    """End the process with this code. Python itself would first wait for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
