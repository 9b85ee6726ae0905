"""Records as claims: read from run folders or published files, grouped by snapshot, planned as jobs again."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fact_eval.jobs.pictures import open_reference
from fact_eval.jobs.plan import Job, ReferenceData
from fact_leaderboard.gate import CONTROLS
from fact_leaderboard.records import RESULTS, Record, find_results, latest_records, read_records
from fact_leaderboard.snapshots import published_snapshot, snapshot_problem
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.file_hashes import file_sha256
from fact_metrics.registry import find_spec


@dataclass(frozen=True)
class Claims:
    """The records of one snapshot, or of one control, that have a value; and the file they come from."""

    results: Path
    records: tuple[Record, ...]

    @property
    def title(self) -> str:
        first = self.records[0]
        return first.run_id if first.kimg is None else f"{first.run_id} at {first.kimg:g} kimg"


@dataclass(frozen=True)
class Planned:
    """A job that makes records again, those records, and a line for each that this code cannot make.

    `basis`: what the values are made from, for the verification.
    """

    job: Job
    records: tuple[Record, ...]
    basis: str
    left_out: tuple[str, ...] = ()


def read_claims(paths: Iterable[Path], *, metrics: Sequence[str] | None = None) -> list[Claims]:
    """The records with a value under run folders, in folders of published records, or in single files.

    `metrics` keeps only those. UsageError for a missing path or if nothing is left.
    """
    paths = list(paths)
    claims = []
    for results in (file for path in paths for file in _files(Path(path))):
        groups: dict[tuple, list[Record]] = {}
        for record in latest_records(read_records(results)):
            if record.status == "ok" and record.value is not None and not record.invalid:
                if metrics is None or record.metric in metrics:
                    groups.setdefault((record.run_id, record.snapshot_sha256), []).append(record)
        claims += [Claims(results, tuple(records)) for records in groups.values()]
    if not claims:
        wanted = f" of {', '.join(metrics)}" if metrics else ""
        raise UsageError(f"no record{wanted} with a value in {', '.join(map(str, paths))}")
    return claims


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; give a run folder, a folder of records, or a .jsonl file")
    return list(find_results(path)) or sorted(path.glob("*.jsonl"))


def plan_claims(claims: Claims, *, data: str | None = None) -> Planned:
    """The job that makes the records of a snapshot or control again.

    `data`: where the real images are, if not where the record says. UserError if the snapshot is not at hand
    or is not the scored one.
    """
    first = claims.records[0]
    if first.source == "images":
        raise UserError(
            f"{first.run_id}: pictures of a folder are not in the record; score them with fact-eval images"
        )
    if first.source == "imported":
        raise UserError(
            f"{first.run_id}: the record holds no imported file; score {first.snapshot} with fact-eval run"
        )
    if first.source in CONTROLS:
        job, basis = _plan_control(claims, data), "the dataset"
    else:
        path, basis = find_snapshot(claims)
        job = _plan_snapshot(claims, path, data)
        _refuse_other_origin(path, first)
    return _fill(job, claims.records, basis)


def plan_snapshot(claims: Claims, path: Path, *, data: str | None = None) -> Planned:
    """The job that makes the records of a run from another snapshot, such as one trained again."""
    return _fill(_plan_snapshot(claims, path, data), claims.records, str(path))


def _fill(job: Job, records: Sequence[Record], basis: str) -> Planned:
    """The job with all records whose metric this code still measures under the same protocol."""
    kept, missing, left_out = [], [], []
    for record in records:
        spec = find_spec(record.metric)
        if spec is None or spec.protocol_sha256 != record.protocol_sha256:
            git = record.provenance.get("git") or {}
            commit = str(git.get("commit") or "none")[:12]
            left_out.append(f"{record.metric}: another protocol than this code's; scored by commit {commit}")
            continue
        if spec.needs_training:
            left_out.append(f"{record.metric}: measured from the log of the run, not from a snapshot")
            continue
        kept.append(record)
        missing.append((spec, record.seed))
    job = dataclasses.replace(job, missing=tuple(missing))
    return Planned(job, tuple(kept), basis, tuple(left_out))


def find_snapshot(claims: Claims) -> tuple[Path, str]:
    """The snapshot that was scored, and how it is at hand: in the run folder, or published."""
    first = claims.records[0]
    name = first.snapshot
    if not isinstance(name, str) or Path(name).name != name:
        raise UserError(f"{first.run_id}: snapshot {name!r} is not a file name")
    local = claims.results.parent / name
    if claims.results.name == RESULTS and local.is_file():
        if file_sha256(local) != first.snapshot_sha256:
            raise UserError(f"{local} is not the snapshot that was scored: its hash differs from the record")
        return local, "the run's snapshot"
    path = published_snapshot(first, claims.results.parent)
    if path is None:
        raise UserError(
            f"{first.run_id}: its snapshot is not at hand and not published; --from-training trains another"
        )
    if problem := snapshot_problem(first, claims.results.parent):
        raise UserError(f"{first.run_id}: {problem}")
    return path, "the published snapshot"


def _plan_snapshot(claims: Claims, path: Path, data: str | None) -> Job:
    meta, first = _read_meta(path), claims.records[0]
    try:
        dataset, location = dict(meta["dataset"]), data or meta["config"]["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe its training data: {error}") from error
    return Job(
        source="run",
        run_id=first.run_id,
        label=first.label,
        results=claims.results,
        reference=ReferenceData(location, dataset),
        content_sha256=file_sha256(path),
        snapshot=path,
        kimg=first.kimg,
        train_seed=first.train_seed,
        config_sha256=first.config_sha256,
    )


def _refuse_other_origin(path: Path, record: Record) -> None:
    """UserError unless the file is the scored snapshot, or says that it was made from it."""
    if file_sha256(path) == record.snapshot_sha256:
        return
    if _read_meta(path).get("left_out_of") != record.snapshot_sha256:
        raise UserError(f"{path} was not made from the snapshot that {record.run_id} scored")


def _read_meta(path: Path) -> dict:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("fact", "null"))
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is truncated or damaged ({error})") from error
    if not isinstance(meta, dict):
        raise UserError(f"{path} is not a snapshot of fact-train")
    return meta


def _plan_control(claims: Claims, data: str | None) -> Job:
    first = claims.records[0]
    reference = open_reference(data or first.dataset["name"])
    if first.run_id != f"{first.source}-{reference.name}":
        raise UserError(f"{first.run_id}: {reference.data} holds other images, {reference.name}")
    return Job(
        source=first.source,
        run_id=first.run_id,
        label=first.label,
        results=claims.results,
        reference=reference,
        content_sha256=first.snapshot_sha256,
    )
