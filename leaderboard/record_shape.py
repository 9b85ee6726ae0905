"""The shapes of records and verifications: what `from_json` checks before anything reads a field."""

from typing import Any, Literal

import msgspec

from fact_metrics.base.limits import RECORD
from fact_metrics.base.plain_text import check_file_name
from fact_metrics.base.schema import DatasetShape, GitShape, StartShape, fits, parse_json


class ProtocolShape(msgspec.Struct):
    """A protocol, as far as a board prints its parts in places of their own."""

    detectors: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    sampling: dict[str, Any] | None = None


class IntervalShape(msgspec.Struct):
    """A confidence interval."""

    low: float
    high: float


class ResumedShape(StartShape, kw_only=True):
    """A later start of a run; its code is always recorded."""

    git: GitShape | None


class TrainingShape(StartShape, kw_only=True):
    """How a run was trained; empty for other sources."""

    preset: str | None = None
    argv: list[str] = msgspec.field(default_factory=list)
    resumed: list[ResumedShape] = msgspec.field(default_factory=list)


class ProvenanceShape(StartShape, kw_only=True):
    """How a value was scored."""

    argv: list[str] = msgspec.field(default_factory=list)
    device: str | None = None
    finished: str | None = None


class RecordShape(msgspec.Struct, kw_only=True):
    """The fields of a record; `Record` says what they mean."""

    run_id: str
    source: str
    label: str
    snapshot: str | None
    snapshot_sha256: str
    kimg: float | None
    train_seed: int | None
    config_sha256: str | None
    metric: str
    metric_version: int
    summary: str
    citation: str
    protocol: ProtocolShape
    protocol_sha256: str
    seed: int
    higher_is_better: bool
    value: float | None
    stderr: float | None = None
    ci: IntervalShape | None = None
    extras: dict[str, Any] = msgspec.field(default_factory=dict)
    n_requested: int | None
    n_effective: int | None
    n_real: int | None
    status: str
    error: str | None = None
    seconds: float | None = None
    dataset: DatasetShape
    training: TrainingShape = msgspec.field(default_factory=TrainingShape)
    provenance: ProvenanceShape
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        for name in ("snapshot_sha256", "metric", *(["snapshot"] if self.snapshot is not None else [])):
            check_file_name(getattr(self, name), name)


class CheckShape(StartShape, kw_only=True):
    """How a verification was made: code, machine and time."""

    platform: str | None = None
    device: str | None = None
    argv: list[str] = msgspec.field(default_factory=list)
    finished: str | None = None


class VerificationShape(msgspec.Struct, kw_only=True):
    """The fields of a verification; `Verification` says what they mean."""

    kind: str
    run_id: str
    snapshot_sha256: str
    metric: str
    metric_version: int
    protocol_sha256: str
    seed: int
    claimed: float
    found: float
    difference: float
    tolerance: float | None
    reason: str
    holds: bool | None
    by: str
    basis: str
    provenance: CheckShape
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        for name in ("snapshot_sha256", "metric"):
            check_file_name(getattr(self, name), name)


def parse_line(line: str | bytes) -> dict[str, Any]:
    """A line of JSON as a dictionary. ValueError for anything else, and for a line too long."""
    if len(line) > RECORD.most:
        raise ValueError(f"{RECORD.text(len(line))}, at most {RECORD.text(RECORD.most)} are read")
    data = parse_json(line)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def check_shape(data: dict[str, Any]) -> None:
    """Raise ValueError unless every field of a record has its type."""
    fits(data, RecordShape)


def check_verification(data: dict[str, Any]) -> None:
    """Raise ValueError unless every field of a verification has its type."""
    fits(data, VerificationShape)


def check_run_id(run_id: str) -> None:
    """Raise ValueError unless a run id can name a visible file: records are published under it."""
    check_file_name(run_id, "run_id")
    if run_id.startswith("."):
        raise ValueError(f"run_id {run_id!r} cannot name a visible file")
