"""What run folders say about their runs: how far each is. No torch."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import decode, parse_document
from fact_train.run_folder import (
    DIVERGED_FILE,
    TickShape,
    checkpoint_nimg,
    list_checkpoints,
    list_snapshots,
    read_options,
    snapshot_nimg,
)
from fact_train.settings.config import TrainConfig, differing_fields
from fact_train.sweeps.plan import PlannedRun

NEW, PARTIAL, TRAINED, DIVERGED, CONFLICT = "new", "partial", "trained", "diverged", "conflict"


class DivergedShape(msgspec.Struct):
    """diverged.json: where training ended and why."""

    kimg: float
    message: str
    term: str
    step: int


@dataclass(frozen=True)
class Progress:
    """How far the run of a folder is. `why` tells why it cannot go on."""

    state: str
    kimg: float = 0.0
    why: str = ""


def read_progress(run: PlannedRun) -> Progress:
    """Where a planned run stands."""
    if not (run.outdir / "training_options.json").exists():
        return Progress(NEW)
    try:
        options = read_options(run.outdir)
        if (options["config_sha256"], options["seed"]) != (run.config.sha256(), run.seed):
            there = TrainConfig.from_dict(options["config"])
            fields = differing_fields(there, run.config)
            name = fields[0] if fields else "the configuration"
            values = (
                f" is {getattr(there, name)} there and {getattr(run.config, name)} here" if fields else ""
            )
            return Progress(CONFLICT, 0.0, f"{run.outdir} holds another run: {name}{values}.")
        if (run.outdir / DIVERGED_FILE).exists():
            found = read_diverged(run.outdir)
            return Progress(DIVERGED, found.kimg, found.message)
        snapshots = list_snapshots(run.outdir)
        nimg = snapshot_nimg(snapshots[-1]) if snapshots else -1
    except (UserError, OSError) as error:
        return Progress(CONFLICT, 0.0, str(error))
    if nimg >= round(run.config.kimg * 1000):
        return Progress(TRAINED, nimg / 1000)
    saved = list_checkpoints(run.outdir)
    return Progress(PARTIAL, checkpoint_nimg(saved[-1]) / 1000 if saved else 0.0)


def read_diverged(outdir: Path) -> DivergedShape:
    """The diverged.json of a run folder. Raises UserError if it cannot be read."""
    path = outdir / DIVERGED_FILE
    return decode(path.read_bytes(), DivergedShape, path, way_out="delete it and train again")


def last_tick(outdir: Path) -> dict | None:
    """The last complete line of stats.jsonl; None before the first tick."""
    try:
        with open(outdir / "stats.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16384))
            lines = file.read().split(b"\n")[:-1]
        path = outdir / "stats.jsonl"
        return parse_document(lines[-1], TickShape, path, way_out="train again") if lines else None
    except (OSError, UserError):
        return None
