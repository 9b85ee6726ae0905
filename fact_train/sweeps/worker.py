"""One task of a sweep in a process of its own. Any executor calls `run_task`, on any machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

POLL = 0.25  # seconds between two looks at a process
PATIENCE = 45.0  # seconds that a stopped process has to save its state
LOCK_WAIT = 60.0  # seconds that a run folder may still be held by a process that is saving its state
STOPPED = (75, 130, -signal.SIGTERM, -signal.SIGINT)


@dataclass(frozen=True)
class Task:
    """A command, its log, the folder that it locks, and the file whose existence means: stop.

    `halt_file` means the same for this task alone. Machines that share a disk share all paths.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    stop_file: Path
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    halt_file: Path | None = None

    @property
    def must_stop(self) -> bool:
        return self.stop_file.exists() or (self.halt_file is not None and self.halt_file.exists())


@dataclass(frozen=True)
class Outcome:
    """How a task ended. `line` is the last line it wrote."""

    name: str
    exit_code: int
    seconds: float
    line: str = ""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def stopped(self) -> bool:
        """Whether it ended on request, to be continued."""
        return self.exit_code in STOPPED

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        if self.exit_code >= 0:
            return self.line or f"exit code {self.exit_code}"
        name = signal.Signals(-self.exit_code).name
        memory = "; the system kills processes when memory runs out: use fewer --jobs"
        return f"killed by {name}{memory if name == 'SIGKILL' else ''}"


def worker_command(module: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """`python -m MODULE ARGUMENTS` as a process that ends with its parent."""
    return (sys.executable, "-m", "fact_train.sweeps.attached", module, *arguments)


def run_task(task: Task) -> Outcome:
    """Run the command to its end, or until the stop file appears."""
    started = time.monotonic()
    if task.must_stop:
        return Outcome(task.name, 75, 0.0)
    _wait_for_lock(task)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "ab") as log:
        before = log.tell()
        process = subprocess.Popen(
            task.command,
            cwd=task.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **task.environment, "FACT_TRAIN_PARENT": str(os.getpid())},
            start_new_session=True,
        )
        try:
            code = _wait(process, task)
        finally:
            if process.poll() is None:  # this process is going down itself
                process.terminate()
    return Outcome(task.name, code, time.monotonic() - started, _last_line(task.log, before))


def _wait(process: subprocess.Popen, task: Task) -> int:
    asked, asks = 0.0, 0
    while True:
        try:
            return process.wait(POLL)
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if not task.must_stop or (asks and now - asked < PATIENCE):
            continue
        asked, asks = now, asks + 1
        if asks <= 2:  # fact-train saves its state on the first one; a second one acts at once
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for_lock(task: Task) -> None:
    """A run whose sweep was killed may still be saving its state."""
    lock_file = None if task.folder is None else task.folder / ".lock"
    if lock_file is None or not lock_file.exists():
        return
    end = time.monotonic() + LOCK_WAIT
    while time.monotonic() < end and not task.must_stop:
        try:
            with FileLock(lock_file, timeout=0):
                return
        except Timeout:
            time.sleep(POLL)


def _last_line(log: Path, start: int) -> str:
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
