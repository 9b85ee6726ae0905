"""Generated bad inputs: every command that reads one ends in time, in one line, and nothing in it runs."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.entries import Entry
from benchmarks.hostile.runner import Case, Outcome, run_case

MOST_MB = 1000  # of memory, of a file that is refused
LIST = 20  # lines that one refusal may take: an audit names every bad file
FRESH = 100  # every so many inputs, one is also read by the installed program, started anew
PROGRAMS = ("fact-eval: ", "fact-train: ")


@dataclass
class Inputs:
    """What came of the inputs of one entry; `kinds` counts messages without their names and numbers."""

    entry: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    fresh: int = 0  # of them, also read by the installed program
    kinds: dict[str, int] = field(default_factory=dict)
    peak_mb: float = 0.0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


def run_entries(entries: Sequence[Entry], folder: Path, *, inputs: int, seed: int) -> Iterator[Inputs]:
    """Run `inputs` bad inputs of every entry; the installed program must say the same of some.

    An interrupted row counts the inputs until then; KeyboardInterrupt follows it.
    """
    for entry in entries:
        found = Inputs(entry.name)
        try:
            for number in range(inputs):
                _add(found, entry.case(number, seed), folder, twice=number % FRESH == FRESH // 2)
        except KeyboardInterrupt:
            if found.inputs:
                yield found
            raise
        yield found


def _add(found: Inputs, case: Case, folder: Path, *, twice: bool) -> None:
    """Run one input, perhaps also in a new process, and count what came of it."""
    outcome = _outcome(case, folder)
    again = _outcome(case, folder, fresh=True) if twice else None
    found.inputs += 1
    found.refused += outcome.code in (1, 2)
    found.accepted += outcome.code == 0
    found.fresh += again is not None
    found.slowest = max(found.slowest, outcome.seconds)
    if outcome.code in (1, 2):
        found.peak_mb = max(found.peak_mb, outcome.peak_mb)
        kind = error_kind(outcome.output)
        found.kinds[kind] = found.kinds.get(kind, 0) + 1
    found.faults += _described(case, outcome, faults_of(outcome))
    if again is not None:
        found.faults += _described(case, again, differences(outcome, again))


def differences(forked: Outcome, fresh: Outcome) -> list[str]:
    """What is wrong with an input in a new process; both processes must end alike, with equal errors."""
    alike = forked.code == fresh.code and error_lines(forked.output) == error_lines(fresh.output)
    return [*faults_of(fresh), *([] if alike else ["other in a new process"])]


def _outcome(case: Case, folder: Path, *, fresh: bool = False) -> Outcome:
    outcome = run_case(case, folder / "case", fresh=fresh)
    shutil.rmtree(folder / "case")
    return outcome


def _described(case: Case, outcome: Outcome, wrong: Sequence[str]) -> list[str]:
    """A line, if something is wrong."""
    shown = " ".join(outcome.output[-300:].split())
    return [f"{case.name}: exit {outcome.code}: {', '.join(wrong)}: {shown}"] if wrong else []


def faults_of(outcome: Outcome) -> list[str]:
    """What a command may not do, whatever it reads."""
    said = error_lines(outcome.output)
    rules = {
        "no line": outcome.code in (1, 2) and not said,
        "many lines": len(said) > LIST,
        "another exit code": outcome.code not in (0, 1, 2) and not {"crash", "hang"} & set(outcome.faults),
        "memory": outcome.code in (1, 2) and outcome.peak_mb > MOST_MB,
    }
    return [*outcome.faults, *(name for name, holds in rules.items() if holds)]


def error_lines(output: str) -> list[str]:
    """The lines of an output that a program says in its own name, or an audit about a file."""
    lines = output.splitlines()
    return [line for line in lines if line.startswith((*PROGRAMS, "failed: ", "error: ", "Usage: "))]


def error_kind(output: str) -> str:
    """The last error of an output without file names, values and numbers."""
    line = (error_lines(output) or [output.strip()[-200:]])[-1]
    for prefix in PROGRAMS:
        line = line.removeprefix(prefix)
    line = re.sub(r"'[^']*'|\"[^\"]*\"|\S*[/\\.]\S*|\S*\d\S*", "_", line)
    return re.sub(r"(_[ ,:;()-]*)+", "_ ", line)[:80]
