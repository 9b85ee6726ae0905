"""Commands killed at random moments and started again: they leave what an uninterrupted run leaves."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.faults.layer import Count, killed_at, watch
from benchmarks.faults.targets import Target
from benchmarks.hostile.runner import Ended, run_command

KILLED = -9
IN_A_ROW = 2  # kills before a run may finish


@dataclass
class Kills:
    """What came of the kills of one target; `faults` are lines."""

    target: str
    kills: int = 0
    at_writes: int = 0  # before a change of a file; the others come at a random time
    finished: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)


def kill_targets(targets: Sequence[Target], folder: Path, *, kills: int, seed: int) -> Iterator[Kills]:
    """Kill every target about kills / len(targets) times, every other time just before a file changes."""
    for i, target in enumerate(targets):
        share = kills // len(targets) + (i < kills % len(targets))
        yield _kill(target, folder / f"{i}", share, random.Random(f"{seed} {target.name}"))


def _kill(target: Target, folder: Path, kills: int, random_: random.Random) -> Kills:
    found = Kills(target.name)
    if not kills:
        return found
    whole, changes, expected = reference(target, folder / "whole")
    number = 0
    while found.kills < kills:
        at = _prepared(target, folder / f"{number}")
        number += 1
        ended = whole
        for _ in range(min(IN_A_ROW, kills - found.kills)):
            by_write = found.kills % 2 == 0
            if by_write:
                act = killed_at(random_.randint(1, max(changes, 1)))
                ended = run_command(target.argv, at, prepare=partial(watch, at, act))
            else:
                ended = run_command(target.argv, at, kill_after=random_.uniform(0, whole.seconds))
            found.kills += 1
            found.at_writes += by_write
            if ended.code not in (KILLED, 0):  # a start after a kill must not fail
                found.faults.append(describe(target, f"kill {found.kills}: started again", ended))
        ended = run_command(target.argv, at)
        found.finished += 1
        if ended.code or "Traceback" in ended.output:
            found.faults.append(describe(target, f"after kill {found.kills}", ended))
        elif (results := target.results(at)) == expected:
            found.equal += 1
        else:
            differing = [name for name in {**expected, **results} if results.get(name) != expected.get(name)]
            found.faults.append(f"{target.name}, after kill {found.kills}: {', '.join(differing)} differ")
    return found


def reference(target: Target, at: Path) -> tuple[Ended, int, dict[str, str]]:
    """An uninterrupted run: how it ended, how many changes of files it makes, and its results."""
    _prepared(target, at)
    count = Count()
    ended = run_command(target.argv, at, prepare=lambda: watch(at, lambda number, path: count.add() and None))
    if ended.code:
        raise RuntimeError(f"{target.name} fails on its own: {ended.output[-2000:]}")
    return ended, count.value, target.results(at)


def describe(target: Target, when: str, ended: Ended) -> str:
    """A fault as one line: target, moment, exit code, the end of what was printed."""
    return f"{target.name}, {when}: exit {ended.code}: {' '.join(ended.output[-300:].split())}"


def _prepared(target: Target, at: Path) -> Path:
    at.mkdir(parents=True)
    target.make(at)
    return at
