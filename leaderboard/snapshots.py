"""Published snapshots: networks small enough to stand beside the records, for anyone to score again.

They lie in snapshots/ beside results/, without the discriminator, which no metric needs. Each record of the
run names the file, its size and its SHA-256 in `training.published_snapshot`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fact_leaderboard.records import Record
from fact_metrics.base.errors import UserError
from fact_metrics.base.file_hashes import file_sha256

MEGABYTE = 1_000_000
LARGEST = 5.0  # MB of one snapshot, unless the user says otherwise
LARGEST_TOTAL = 25.0  # MB of all: they are committed
FIELD = "published_snapshot"


def snapshots_folder(results: Path) -> Path:
    """Where the snapshots of a folder of published records lie."""
    return Path(results).parent / "snapshots"


def published_snapshot(record: Record, results: Path) -> Path | None:
    """The published snapshot that a record names, whether it is there or not; None if it names none."""
    named = record.training.get(FIELD)
    if not isinstance(named, dict):
        return None
    name = named.get("file")
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise UserError(f"{record.run_id}: {FIELD} names {name!r}, which is not a file name")
    return snapshots_folder(results) / name


def snapshot_problem(record: Record, results: Path) -> str | None:
    """What is wrong with the published snapshot that a record names; None if it is sound or there is none."""
    try:
        path = published_snapshot(record, results)
    except UserError as error:
        return str(error)
    if path is None:
        return None
    if not path.is_file():
        return f"{path} is missing; restore it, or publish the run again with --with-snapshots"
    if file_sha256(path) != record.training[FIELD].get("sha256"):
        return f"{path} does not have the hash that the record names; restore it"
    return None


def publish_snapshot(run: Path, records: Sequence[Record], results: Path, *, largest: float) -> list[Record]:
    """Write the newest snapshot of a run folder beside the results; returns the records that name it.

    Records of other snapshots come back as they are. Raises UserError if the file is not the scored one, or
    if it is larger than `largest` MB or than what is left of LARGEST_TOTAL; nothing is written then.
    """
    from fact_train.snapshot import save_without_discriminator

    newest = max((r for r in records if r.snapshot), key=lambda r: r.kimg or 0)
    source = Path(run) / newest.snapshot
    if not source.is_file():
        raise UserError(f"{source} is gone: only its records are published")
    if file_sha256(source) != newest.snapshot_sha256:
        raise UserError(f"{source} is not the snapshot that was scored: only its records are published")
    out = snapshots_folder(results) / f"{newest.run_id}-{source.stem.rpartition('-')[2]}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.new")
    try:
        save_without_discriminator(source, part)
        size = part.stat().st_size
        others = sum(p.stat().st_size for p in out.parent.glob("*.safetensors") if p != out)
        if size > largest * MEGABYTE:
            raise UserError(
                f"{source} has {size / MEGABYTE:.1f} MB without its discriminator; --largest-snapshot is "
                f"{largest:g} MB"
            )
        if others + size > LARGEST_TOTAL * MEGABYTE:
            raise UserError(
                f"{out.parent} would hold {(others + size) / MEGABYTE:.1f} MB; its limit is "
                f"{LARGEST_TOTAL:g} MB"
            )
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    named = {"file": out.name, "sha256": file_sha256(out), "bytes": size}
    return [
        dataclasses.replace(r, training={**r.training, FIELD: named})
        if r.snapshot_sha256 == newest.snapshot_sha256
        else r
        for r in records
    ]


def keep_published(record: Record, before: Record | None) -> Record:
    """The record, with the published snapshot that the record of the same key named before."""
    if before is None or FIELD in record.training or FIELD not in before.training:
        return record
    return dataclasses.replace(record, training={**record.training, FIELD: before.training[FIELD]})
