"""Faults of the file layer below one folder, installed in a process that is about to run a command.

Python reports every open, rename, removal and new folder to audit hooks, also those of libraries that open
files through it. A full disk is the kernel's own limit on file sizes, so that writers in C and Rust meet it
too: they see "File too large" where a real disk says "No space left on device".
"""

import errno
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")


class Count:
    """A number that a forked process and this one share."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        """The number."""
        return struct.unpack("q", self._shared[:8])[0]

    def add(self) -> int:
        """One more."""
        self._shared[:8] = struct.pack("q", self.value + 1)
        return self.value


def watch(root: Path, act: Callable[[int, str], None]) -> None:
    """Call act(number, path) before every change below a folder, counted from 1, until this process ends."""
    folder, count = os.path.realpath(root), Count()

    def hook(event: str, args: tuple) -> None:
        path = _changed(event, args)
        if path is not None and os.path.abspath(path).startswith(folder + os.sep):
            act(count.add(), path)

    sys.addaudithook(hook)


def full_from(number: int) -> Callable[[int, str], None]:
    """From change `number` on, no file grows."""

    def act(change: int, path: str) -> None:
        if change == number:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return act


def read_only_from(number: int) -> Callable[[int, str], None]:
    """From change `number` on, nothing changes."""

    def act(change: int, path: str) -> None:
        if change >= number:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    return act


def killed_at(number: int) -> Callable[[int, str], None]:
    """The process ends before change `number`, as by a kill or a power cut."""

    def act(change: int, path: str) -> None:
        if change == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def _changed(event: str, args: tuple) -> str | None:
    """The path that an event changes; None for events that change no file by name."""
    if event == "open":
        path, _, flags = args
        path = path if isinstance(path, str | bytes | os.PathLike) and flags & WRITING else None
    elif event in CHANGES:
        path = args[1] if event == "os.rename" else args[0]
    else:
        return None
    return None if path is None or isinstance(path, int) else os.fsdecode(path)
