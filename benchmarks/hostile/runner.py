"""Runs commands on hostile files, each in a process of its own, and sees what they did.

A process is forked from this one, which has imported the heavy packages; the commands' own `main` parses the
arguments. Everything that a command may write lies below one folder, so a file elsewhere in it is a write
outside.
"""

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120
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


def run_case(case: Case, folder: Path) -> Outcome:
    """Run one case below `folder`, which is new."""
    inside = folder / "inside"
    inside.mkdir(parents=True)
    case.make(inside)
    before = _listing(folder)
    began = time.monotonic()
    code, peak = _fork(case, inside, folder)
    seconds = time.monotonic() - began
    output = (folder / "output").read_text(errors="replace")
    shown = "".join(_text(inside / name) for name in case.shown)
    outside = sorted(_listing(folder) - before)
    faults = {
        "traceback": "Traceback (most recent call last)" in output,
        "crash": code < 0 and code != -signal.SIGKILL,
        "hang": code == -signal.SIGKILL,
        "execution": any(path.name == "harm" for path in folder.rglob("harm")),
        "write outside": bool(outside),
        "raw text": bool(HIDDEN.search(output + shown) or MARKUP.search(shown)),
        "accepted": case.refused and code == 0,
        "no line": case.refused and not output.strip(),
    }
    return Outcome(code, seconds, peak, output, tuple(name for name, holds in faults.items() if holds))


def _fork(case: Case, inside: Path, folder: Path) -> tuple[int, float]:
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _child(case, inside, folder)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def _child(case: Case, inside: Path, folder: Path) -> None:
    """Run the command and end the process."""
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(inside)
    os.environ.update(case.environment)
    code = 1
    try:
        code = _main(case.argv)
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


def _listing(folder: Path) -> set[Path]:
    """Everything below the folder that the command has no business with."""
    own = {folder / "output", folder / "inside"}
    return {p for p in folder.rglob("*") if p not in own and folder / "inside" not in p.parents}


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
