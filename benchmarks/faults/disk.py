"""A disk that fills up or turns read-only: at every change of a file, and a real one of 2 MB.

A command then ends with one line and exit code 1 or 2, or goes on if what it could not write was not needed.
Files that were whole stay whole: with room again, the same command leaves what an uninterrupted one leaves.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.faults.inputs import error_lines
from benchmarks.faults.kills import describe, reference
from benchmarks.faults.layer import full_from, read_only_from, watch
from benchmarks.faults.targets import Target
from benchmarks.hostile.runner import Ended, run_command

KINDS: dict[str, Callable[[int], Callable[[int, str], None]]] = {
    "full": full_from,
    "read-only": read_only_from,
}
TMPFS = "2m"
FREE_KB = (0, 8, 64, 256)  # that the real disk has left when the command begins


@dataclass
class Disk:
    """What one kind of fault did to one target."""

    target: str
    kind: str
    changes: int = 0  # that the command makes in its folder
    faults_set: int = 0
    refused: int = 0
    went_on: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)


def injected(targets: Sequence[Target], folder: Path, *, every: int) -> Iterator[Disk]:
    """A fault at every n-th change of a file, from then on."""
    for i, target in enumerate(targets):
        _, changes, expected = reference(target, folder / f"{i}" / "whole")
        for kind, fault in KINDS.items():
            found = Disk(target.name, kind, changes)
            for number in range(1, changes + 1, every):
                at = folder / f"{i}" / f"{kind}-{number}"
                at.mkdir(parents=True)
                target.make(at)
                ended = run_command(target.argv, at, prepare=partial(watch, at, fault(number)))
                _judge(found, target, f"{kind} from change {number}", ended, at, expected)
                shutil.rmtree(at)
            yield found


def real(targets: Sequence[Target], folder: Path) -> Iterator[Disk | str]:
    """The same on a tmpfs of 2 MB, nearly full and then read-only; a line if there can be none."""
    for i, target in enumerate(targets):
        _, changes, expected = reference(target, folder / f"{i}" / "whole")
        found, locked = (Disk(target.name, f"tmpfs {kind}", changes) for kind in KINDS)
        try:
            for free in FREE_KB:
                with _tmpfs(folder / f"{i}" / f"free-{free}") as at:
                    target.make(at)
                    _fill(at / "filler", free)
                    ended = run_command(target.argv, at)
                    (at / "filler").unlink()
                    _judge(found, target, f"{free} KB free", ended, at, expected)
            with _tmpfs(folder / f"{i}" / "read-only") as at:
                target.make(at)
                _mount("-o", "remount,ro", str(at))
                ended = run_command(target.argv, at)
                _mount("-o", "remount,rw", str(at))
                _judge(locked, target, "read-only", ended, at, expected)
        except (OSError, subprocess.CalledProcessError) as error:
            yield f"no tmpfs here: {error}"
            return
        yield found
        yield locked


def _judge(found: Disk, target: Target, when: str, ended: Ended, at: Path, expected: dict[str, str]) -> None:
    """Count a run under a fault, then run the command again without one and compare what it leaves."""
    found.faults_set += 1
    silent = ended.code and not error_lines(ended.output)
    if "Traceback" in ended.output or ended.code not in (0, 1, 2) or silent:
        found.faults.append(describe(target, when, ended))
    found.refused += ended.code in (1, 2)
    found.went_on += ended.code == 0
    again = run_command(target.argv, at)
    if again.code or "Traceback" in again.output:
        found.faults.append(describe(target, f"{when}, then room again", again))
    elif target.results(at) == expected:
        found.equal += 1
    else:
        found.faults.append(f"{target.name}, {when}, then room again: other results")


@contextmanager
def _tmpfs(at: Path) -> Iterator[Path]:
    at.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={TMPFS}", "faults", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


def _fill(path: Path, free_kb: int) -> None:
    """A file that leaves about this much room."""
    left = shutil.disk_usage(path.parent).free - (free_kb << 10)
    path.write_bytes(bytes(max(left, 0)))
