"""Records: one JSON line per snapshot x metric x seed in an append-only `results.jsonl`.

Boards, tables and comparisons are computed from these files alone. Appending takes a lock and does one write
and one fsync per line. A killed process leaves at most one torn last line; readers skip it, the next append
removes it.
"""

import dataclasses
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fact_leaderboard.record_index import Outcome, known_outcomes
from fact_leaderboard.record_shape import check_run_id, check_shape, parse_line
from fact_leaderboard.shared_parts import is_random, protocol_sha256, share_parts
from fact_metrics.base.canonical import finite
from fact_metrics.base.errors import UserError

SCHEMA = 1
RESULTS = "results.jsonl"
TAIL = 2**16  # bytes that are read at a time from the end of a file
STATUSES = ("ok", "failed", "cancelled")
IMPORTED = "imported"  # the source of a network that another program trained
SOURCES = ("run", IMPORTED, "images", "reals", "noise")
DIVERGED = "diverged"  # the metric of a run whose training ended with a loss or weight that is not finite

Key = tuple[str, str, str, int, str, int]


class NewerSchema(ValueError):
    """A record that a later version of this project wrote."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured value, or why there is none, with everything needed to reproduce it."""

    # What was scored.
    run_id: str  # name of the run folder; imported-..., images-..., reals-..., noise-... for other sources
    source: str  # run | imported | images | reals | noise
    label: str  # the row's name on a board
    snapshot: str | None  # file name inside the run folder; None without a network
    snapshot_sha256: str  # hash of the scored content: of the snapshot file, or of the pictures
    kimg: float | None
    train_seed: int | None
    config_sha256: str | None  # equal for runs that differ only in the training seed
    # What it was scored with.
    metric: str
    metric_version: int
    summary: str  # the meaning of the metric, in one sentence
    citation: str
    protocol: dict  # everything that changes the value
    protocol_sha256: str
    seed: int  # evaluation seed
    higher_is_better: bool
    # The value. Never NaN: a value that is not finite is a failure.
    value: float | None
    stderr: float | None = None
    ci: dict | None = None  # {level, low, high, method, n}
    extras: dict = field(default_factory=dict)
    # The sample.
    n_requested: int | None  # generated images the protocol asks for
    n_effective: int | None  # generated images used
    n_real: int | None
    # The outcome.
    status: str  # ok | failed | cancelled
    error: str | None = None
    seconds: float | None = None  # of the metric, without feature extraction
    # The provenance.
    dataset: dict  # the real images: name, split, n, sha256, resolution, channels, ...
    training: dict = field(default_factory=dict)  # how the run was trained: preset, argv, git, started
    provenance: dict  # how it was scored: git, packages, python, device, threads, argv, times
    schema: int = SCHEMA

    def __post_init__(self):
        check_run_id(self.run_id)
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}, not one of {', '.join(STATUSES)}")
        if self.source not in SOURCES:
            raise ValueError(f"source is {self.source!r}, not one of {', '.join(SOURCES)}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"value is {self.value}: write null and status failed")
        if self.protocol_sha256 != protocol_sha256(self.protocol):
            raise ValueError("protocol_sha256 is not the hash of protocol")

    @property
    def key(self) -> Key:
        """Identity of the measurement; of several records with one key the latest ok record counts."""
        return (
            self.run_id,
            self.snapshot_sha256,
            self.metric,
            self.metric_version,
            self.protocol_sha256,
            self.seed,
        )

    @property
    def invalid(self) -> str | None:
        """Why the value is not a valid measurement; None if it is one."""
        return "random weights, a smoke test" if is_random(self.protocol) else None

    @property
    def degenerate(self) -> str | None:
        """Why the value means nothing, by its own extras; None if nothing is wrong."""
        reason = self.extras.get("degenerate")
        return None if reason is None or self.value is None else str(reason)

    def to_json(self) -> str:
        """The record as one line of JSON, without the line end. NaN and infinities inside become null."""
        return json.dumps(finite(dataclasses.asdict(self)), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Inverse of `to_json`. Raises ValueError if the line is not a record of this schema."""
        data = parse_line(line)
        if type(data.get("schema")) is int and data["schema"] > SCHEMA:
            raise NewerSchema(f"schema {data['schema']}; this version reads schema {SCHEMA}")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema {data.get('schema')!r}; this version reads schema {SCHEMA}")
        if data.keys() != FIELDS:
            if unknown := sorted(data.keys() - FIELDS):
                raise ValueError(f"unknown field {unknown[0]!r}")
            raise ValueError(f"field {min(FIELDS - data.keys())!r} is missing")
        check_shape(data)
        return cls(**share_parts(data))


FIELDS = {field.name for field in dataclasses.fields(Record)}


def read_records(path: Path) -> list[Record]:
    """All records of a file, as `iter_records` reads them."""
    return list(iter_records(path))


def iter_records(path: Path) -> Iterator[Record]:
    """The records of a file in the order written; none of a missing file. A torn last line is skipped.

    Reads line by line. Raises UserError with file and line number for any other broken line.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = Record.from_json(line.decode())
            except NewerSchema as error:
                raise UserError(
                    f"{path} line {number} was written by a newer version ({error}): update fact-stylegan"
                ) from error
            except (ValueError, TypeError) as error:
                if not line.endswith(b"\n"):  # a torn write, the last line of the file
                    return
                raise UserError(
                    f"{path} line {number} is not a record ({error}): remove the line, then run again"
                ) from error
            yield record


def read_folder(folder: Path, problems: list[str]) -> Iterator[tuple[Path, list[Record]]]:
    """Every results file under a folder, with its latest records.

    A file that cannot be read is left out and adds a line to `problems`.
    """
    for path in find_results(folder):
        try:
            records = latest_records(iter_records(path))
        except (UserError, OSError) as error:
            problems.append(str(error))
            continue
        yield path, records


def append_records(path: Path, records: Iterable[Record], *, again: bool = False) -> int:
    """Append records, one write and fsync each, under a lock; returns how many were written.

    A torn last line is removed first. Unless `again`, a record is skipped if its key has an ok record or it
    repeats the latest failure, so two processes that score the same run leave one record per key.
    """
    from filelock import FileLock

    path = Path(path)
    written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            _repair(path)
            with (
                known_outcomes(path, lambda: _outcomes(path)) as known,
                open(path, "ab", buffering=0) as file,
            ):
                for record in records:
                    outcome = (record.status, record.error)
                    if not again and _is_redundant(outcome, known.get(record.key)):
                        continue
                    file.write(record.to_json().encode() + b"\n")
                    os.fsync(file.fileno())
                    known.put(record.key, outcome)
                    written += 1
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"could not write {path}: {reason}; fix that and run the same command again"
        ) from error
    return written


def latest_records(records: Iterable[Record]) -> list[Record]:
    """One record per key, in order of first appearance: the latest ok record, or the latest if none is ok."""
    latest: dict[Key, Record] = {}
    for record in records:
        previous = latest.get(record.key)
        if previous is None or record.status == "ok" or previous.status != "ok":
            latest[record.key] = record
    return list(latest.values())


def done_keys(records: Iterable[Record]) -> set[Key]:
    """Keys that have an ok record."""
    return {record.key for record in records if record.status == "ok"}


def find_results(folder: Path) -> Iterator[Path]:
    """Every `results.jsonl` under a folder, sorted by path."""
    yield from sorted(Path(folder).rglob(RESULTS))


def _outcomes(path: Path) -> Iterator[tuple[Key, Outcome]]:
    for record in latest_records(iter_records(path)):
        yield record.key, (record.status, record.error)


def _is_redundant(outcome: Outcome, latest: Outcome | None) -> bool:
    return latest is not None and (latest[0] == "ok" or tuple(latest) == outcome)


def _repair(path: Path) -> None:
    """Make the file end with a line end: terminate a complete last line, remove a torn one."""
    try:
        file = open(path, "r+b")
    except FileNotFoundError:
        return
    with file:
        start, last = _last_line(file)
        if not last:
            return
        try:
            Record.from_json(last.decode())
        except (ValueError, TypeError):
            file.truncate(start)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Where the text after the last line end begins, and that text; reads from the end of the file."""
    start, text = file.seek(0, os.SEEK_END), b""
    while start > 0 and b"\n" not in text:
        length = min(TAIL, start)
        start = file.seek(start - length)
        text = file.read(length) + text
    end = text.rfind(b"\n") + 1
    return start + end, text[end:]
