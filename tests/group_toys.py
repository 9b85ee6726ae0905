"""A group of processes as torchrun would start it, forked from the test: nothing is imported again."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """What one process printed."""

    out: str
    err: str


def run_group(size: int, function: Callable[[int], object], folder: Path) -> list[Said]:
    """function(rank) in `size` processes with torchrun's environment; fails where one of them does."""
    folder.mkdir(parents=True)
    port = _free_port()
    start = multiprocessing.get_context("fork").Process
    started = [start(target=_child, args=(rank, size, port, function, folder)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        if process.is_alive():
            process.kill()
    said = [
        Said((folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text())
        for rank in range(size)
    ]
    assert [process.exitcode for process in started] == [0] * size, said
    return said


def _child(rank: int, size: int, port: str, function: Callable[[int], object], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(size)}
    with open(folder / f"{rank}.out", "w") as sys.stdout, open(folder / f"{rank}.err", "w") as sys.stderr:
        try:
            function(rank)
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the test runner's that was copied here may run


def _free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])
