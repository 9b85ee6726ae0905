"""Runs commands on hostile files, each in a process of its own, and sees what they did.

A process is forked from this one, which has imported the heavy packages; the commands' own `main` parses the
arguments. `fresh` starts the installed program instead, which imports everything itself. Either has a
session, a folder and limits of its own. Everything that a command may write lies below one folder, so a file
elsewhere in it is a write outside.

Peak memory counts what a forked process shares with this one: it is what the command alone takes, or more.
"""

import math
import os
import re
import resource
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120  # that a command may take, beside the time that it waits for a processor
GRACE = 2  # seconds that processes of a command may outlive it
MEMORY = 8 << 30  # of writable memory, so that a fault of one command does not take the machine's
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MARKUP = re.compile(r"<(script|img)|\n# H1")


@dataclass(frozen=True)
class Case:
    """A command on a hostile file; `make` writes the files into an empty folder, where the command runs.

    `refused`: the command must fail in one line; otherwise it may also succeed. `shown`: files that it writes
    and people read: Markdown, searched for hidden characters like the output, and for markup.
    """

    name: str
    argv: tuple[str, ...]
    make: Callable[[Path], object]
    refused: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a command did. `peak_mb` is the largest resident memory of its process."""

    code: int
    seconds: float
    peak_mb: float
    output: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, negative for a signal. `hung`: it was killed for its time.

    `left`: it ended by itself, and processes that it had started went on; they are killed.
    """

    code: int
    hung: bool
    left: bool
    seconds: float
    peak_mb: float
    output: str


def run_case(case: Case, folder: Path, *, fresh: bool = False) -> Outcome:
    """Run one case below `folder`, which is new."""
    inside = folder / "inside"
    inside.mkdir(parents=True)
    case.make(inside)
    before = _listing(folder)
    ended = run_command(case.argv, inside, environment=case.environment, fresh=fresh)
    output = ended.output
    shown = "".join(_text(inside / name) for name in case.shown)
    outside = sorted(_listing(folder) - before)
    faults = {
        "traceback": "Traceback (most recent call last)" in output,
        "crash": ended.code < 0 and not ended.hung,
        "hang": ended.hung,
        "left running": ended.left,
        "execution": any(path.name == "harm" for path in folder.rglob("harm")),
        "write outside": bool(outside),
        "raw text": bool(HIDDEN.search(output + shown) or MARKUP.search(shown)),
        "accepted": case.refused and ended.code == 0,
        "no line": case.refused and not output.strip(),
    }
    return Outcome(
        ended.code,
        ended.seconds,
        ended.peak_mb,
        output,
        tuple(name for name, holds in faults.items() if holds),
    )


def run_command(
    argv: Sequence[str],
    inside: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], object] | None = None,
    kill_after: float | None = None,
    fresh: bool = False,
) -> Ended:
    """Run a command in a folder, after `prepare` in its process; SIGKILL ends it after `kill_after`."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _child(_fresh if fresh else _main, argv, inside, environment or {}, prepare, writer)
    os.close(writer)
    os.set_blocking(reader, False)
    output, hung = bytearray(), False
    deadline = began + (SECONDS if kill_after is None else kill_after)
    try:
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            output += _available(reader)
            if done:
                break
            waited = _queued(pid) if kill_after is None and time.monotonic() > deadline else 0
            if time.monotonic() > deadline + waited:
                _kill(pid)
                hung, deadline = kill_after is None, math.inf
            time.sleep(0.005)
    except KeyboardInterrupt:  # which its own session does not get
        _kill(pid)
        raise
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    left = code >= 0 and _stays(pid)
    _kill(pid)
    seconds, text = time.monotonic() - began, output.decode(errors="replace")
    return Ended(code, hung and code == -signal.SIGKILL, left, seconds, usage.ru_maxrss / 1024, text)


def _queued(pid: int) -> float:
    """Seconds that a process was ready to run and others ran: a busy machine is no fault of a command."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:  # it has ended, or this is not Linux
        return 0.0


def _kill(group: int) -> None:
    """Kill a command with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _stays(group: int) -> bool:
    """Whether what a command started is there for long after it."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    return True


def _available(reader: int) -> bytes:
    """What a pipe holds now."""
    parts = []
    while True:
        try:
            part = os.read(reader, 1 << 16)
        except BlockingIOError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _child(
    main: Callable[[Sequence[str]], int],
    argv: Sequence[str],
    inside: Path,
    environment: Mapping[str, str],
    prepare: Callable[[], object] | None,
    output: int,
) -> None:
    """Run the command and end the process."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.chdir(inside)
        os.environ.update(environment)
        if prepare is not None:
            prepare()
        code = main(argv)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(argv: Sequence[str]) -> int:
    program, *arguments = argv
    sys.argv = list(argv)
    try:
        if program == "fact-eval":
            from fact_eval.cli import main

            main(arguments)
        else:
            from fact_train.cli import main

            main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _fresh(argv: Sequence[str]) -> int:
    """Become the installed program."""
    program, *arguments = argv
    os.execv(Path(sysconfig.get_path("scripts"), program), [program, *arguments])


def _listing(folder: Path) -> set[Path]:
    """Everything below the folder that the command has no business with."""
    inside = folder / "inside"
    return {p for p in folder.rglob("*") if p != inside and inside not in p.parents}


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
