"""Verifications: one JSON line per check of a record, in an append-only file beside the records.

A verification states what the record claims, what the check found, and whether the two agree within a stated
tolerance. It names the checked record by its key, so an edited record no longer fits its verifications.
"""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fact_leaderboard.record_shape import check_verification, parse_line
from fact_leaderboard.records import RESULTS, Key, Record
from fact_metrics.base.canonical import finite
from fact_metrics.base.errors import UserError
from fact_metrics.base.plain_text import for_terminal

SCHEMA = 1
VERIFICATIONS = "verifications.jsonl"
# snapshot and source: images made again; training: the run trained again; crosscheck: other people's code.
KINDS = ("snapshot", "source", "training", "crosscheck")
MOST_DIGITS = 15  # of a float64


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A check of one record. `holds` is None if nothing says how far the two values may differ."""

    kind: str
    # The checked record.
    run_id: str
    snapshot_sha256: str
    metric: str
    metric_version: int
    protocol_sha256: str
    seed: int
    # The outcome.
    claimed: float
    found: float
    difference: float  # found - claimed
    tolerance: float | None  # of |difference|
    reason: str  # why the tolerance is what it is
    holds: bool | None
    by: str  # the code that found the value
    basis: str  # what it was found from
    provenance: dict  # git, packages, platform, device, threads, argv, times
    schema: int = SCHEMA

    def __post_init__(self):
        check_verification(dataclasses.asdict(self))
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, not one of {', '.join(KINDS)}")
        numbers = [self.claimed, self.found, self.difference, self.tolerance or 0.0]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a value is not finite")
        if self.difference != self.found - self.claimed:
            raise ValueError(f"difference is {self.difference}, not found - claimed")
        if self.holds != judge(self.difference, self.tolerance):
            raise ValueError(f"holds is {self.holds}, but |difference| and tolerance say otherwise")

    @property
    def key(self) -> Key:
        """Key of the checked record."""
        return (
            self.run_id,
            self.snapshot_sha256,
            self.metric,
            self.metric_version,
            self.protocol_sha256,
            self.seed,
        )

    @property
    def digits(self) -> int:
        """Leading decimal digits in which claimed and found agree; 15 if they are equal."""
        return agreeing_digits(self.claimed, self.found)

    @property
    def is_clean(self) -> bool:
        """Whether the checking code is a commit that others can check out."""
        git = self.provenance.get("git") or {}
        return bool(git.get("commit")) and git.get("dirty") is False

    def to_json(self) -> str:
        """The verification as one line of JSON, without the line end."""
        return json.dumps(finite(dataclasses.asdict(self)), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Verification":
        """Inverse of `to_json`. Raises ValueError if the line is not a verification of this schema."""
        data = parse_line(line)
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema {for_terminal(data.get('schema'))[:40]}; this version reads {SCHEMA}")
        names = {field.name for field in dataclasses.fields(cls)}
        if odd := sorted(names ^ set(data)):
            state = "missing" if odd[0] in names else "unknown"
            raise ValueError(f"field {for_terminal(odd[0])[:40]!r} is {state}")
        return cls(**data)


def verify(
    record: Record,
    found: float,
    *,
    kind: str,
    tolerance: float | None,
    reason: str,
    by: str,
    basis: str,
    provenance: dict,
) -> Verification:
    """The verification of a record that has a value."""
    claimed, found = float(record.value), float(found)  # a peer's number may be numpy's
    difference, tolerance = found - claimed, None if tolerance is None else float(tolerance)
    return Verification(
        kind=kind,
        run_id=record.run_id,
        snapshot_sha256=record.snapshot_sha256,
        metric=record.metric,
        metric_version=record.metric_version,
        protocol_sha256=record.protocol_sha256,
        seed=record.seed,
        claimed=claimed,
        found=found,
        difference=difference,
        tolerance=tolerance,
        reason=reason,
        holds=judge(difference, tolerance),
        by=by,
        basis=basis,
        provenance=provenance,
    )


def judge(difference: float, tolerance: float | None) -> bool | None:
    """Whether a difference lies within a tolerance; None without a tolerance."""
    return None if tolerance is None else abs(difference) <= tolerance


def agreeing_digits(a: float, b: float) -> int:
    """Leading decimal digits in which two numbers agree: 0 if they differ by their own size or more."""
    if a == b:
        return MOST_DIGITS
    relative = abs(a - b) / max(abs(a), abs(b))
    return max(0, min(MOST_DIGITS, math.floor(-math.log10(relative))))


def beside(results: Path) -> Path:
    """The verifications of a file of records: in the run folder, or in verifications/ beside results/."""
    results = Path(results)
    if results.name == RESULTS:
        return results.with_name(VERIFICATIONS)
    return results.parent.parent / "verifications" / results.name


def read_verifications(path: Path) -> list[Verification]:
    """All verifications of a file in the order written; [] for a missing file. A torn last line is skipped.

    Raises UserError with file and line number for any other broken line.
    """
    return list(_iter_verifications(Path(path)))


def _iter_verifications(path: Path) -> Iterator[Verification]:
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = Verification.from_json(line.decode())
            except ValueError as error:
                if not line.endswith(b"\n"):  # a torn write, the last line of the file
                    return
                raise UserError(
                    f"{path} line {number} is not a verification ({error}): remove the line, then run again"
                ) from error
            yield found


def append_verifications(path: Path, verifications: Iterable[Verification]) -> None:
    """Append verifications under a lock on the file itself; a torn last line is removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed; leaves no lock file among published ones
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        for verification in verifications:
            file.write(verification.to_json().encode() + b"\n")
        os.fsync(file.fileno())


def latest_verifications(verifications: Iterable[Verification]) -> list[Verification]:
    """The latest verification of every record, kind and code, in order of first appearance."""
    latest: dict[tuple, Verification] = {}
    for verification in verifications:
        latest[verification.key, verification.kind, verification.by] = verification
    return list(latest.values())


def published_verifications(results: Path) -> list[Verification]:
    """The verifications beside a folder of published records, in order of file name."""
    folder = Path(results).parent / "verifications"
    return [found for path in sorted(folder.glob("*.jsonl")) for found in read_verifications(path)]


def of_records(verifications: Iterable[Verification], records: Sequence[Record]) -> list[Verification]:
    """The latest clean verifications of these records, of the values that the records hold now."""
    values = {record.key: record.value for record in records}
    clean = (v for v in verifications if v.is_clean and values.get(v.key) == v.claimed)
    return latest_verifications(clean)
