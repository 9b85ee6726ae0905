"""What run folders say about their runs: how far each is, how fast it trained, how large it is. No torch."""

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fact_metrics.base.errors import UserError
from fact_metrics.base.schema import decode, parse_document
from fact_train.run_folder import DIVERGED_FILE, SpeedShape, list_snapshots, read_options, snapshot_nimg
from fact_train.settings.config import TrainConfig, differing_fields
from fact_train.settings.presets import get_preset
from fact_train.sweeps.plan import PlannedRun

NEW, PARTIAL, TRAINED, DIVERGED, CONFLICT = "new", "partial", "trained", "diverged", "conflict"


class DivergedShape(msgspec.Struct):
    """diverged.json: where training ended and why."""

    kimg: float
    message: str


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
        diverged = run.outdir / DIVERGED_FILE
        if diverged.exists():
            found = decode(diverged.read_bytes(), DivergedShape, diverged, way_out="delete it")
            return Progress(DIVERGED, found.kimg, found.message)
        snapshots = list_snapshots(run.outdir)
        nimg = snapshot_nimg(snapshots[-1]) if snapshots else -1
    except (UserError, OSError) as error:
        return Progress(CONFLICT, 0.0, str(error))
    if nimg >= round(run.config.kimg * 1000):
        return Progress(TRAINED, nimg / 1000)
    saved = sorted(run.outdir.glob("training-state-*.pt"))
    kimg = saved[-1].stem.rpartition("-")[2] if saved else "0"
    return Progress(PARTIAL, float(kimg) if kimg.isdecimal() else 0.0)


def last_tick(outdir: Path) -> dict | None:
    """The last complete line of stats.jsonl; None before the first tick."""
    try:
        with open(outdir / "stats.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16384))
            lines = file.read().split(b"\n")[:-1]
        path = outdir / "stats.jsonl"
        return parse_document(lines[-1], SpeedShape, path, way_out="train again") if lines else None
    except (OSError, UserError):
        return None


@dataclass(frozen=True)
class Estimate:
    """Expected cost of the rest of a plan."""

    kimg: float
    minutes: float | None  # on one worker; None: nothing measured
    measured: int  # runs whose speed was read
    run_mb: float | None  # of one finished folder
    new: int

    def describe(self, jobs: int) -> list[str]:
        """Lines of a dry run."""
        if self.minutes is None:
            time = "time: not known before one run has trained here"
        else:
            how = (
                f"speed of {self.measured} runs here"
                if self.measured
                else "the presets' minutes on 2 CPU cores"
            )
            time = f"time: about {self.minutes / jobs:.0f} min with {jobs} at a time (from {how})"
        disk = "disk: not known before one run has finished here"
        if self.run_mb is not None:
            disk = f"disk: about {self.run_mb * self.new / 1000:.1f} GB ({self.run_mb:.0f} MB per run)"
        return [f"left: {self.kimg:,.0f} kimg", time, disk]


def estimate(runs: Iterable[PlannedRun], progress: dict[str, Progress]) -> Estimate:
    """Time and disk of what is left, from the runs that are there, otherwise from the presets' minutes."""
    runs = list(runs)
    speeds: dict[str, list[float]] = {}
    sizes = []
    for run in runs:
        state = progress[run.name].state
        tick = last_tick(run.outdir) if state in (PARTIAL, TRAINED) else None
        if tick is not None:
            speeds.setdefault(run.preset, []).append(tick["Timing/sec_per_kimg"])
        if state == TRAINED and len(sizes) < 20:
            sizes.append(sum(p.stat().st_size for p in run.outdir.iterdir() if p.is_file()) / 1e6)
    everything = [speed for each in speeds.values() for speed in each]
    kimg, seconds = 0.0, 0.0
    for run in runs:
        now = progress[run.name]
        if now.state not in (NEW, PARTIAL):
            continue
        left = run.config.kimg - now.kimg
        kimg += left
        speed = _speed(run, speeds.get(run.preset, everything))
        seconds = None if seconds is None or speed is None else seconds + left * speed
    new = sum(now.state in (NEW, PARTIAL) for now in progress.values())
    minutes = None if seconds is None else seconds / 60
    return Estimate(kimg, minutes, len(everything), statistics.median(sizes) if sizes else None, new)


def _speed(run: PlannedRun, measured: list[float]) -> float | None:
    """Seconds per thousand images."""
    if measured:
        return statistics.median(measured)
    preset = get_preset(run.preset)
    if preset.minutes is None or run.config.device.startswith("cuda"):
        return None
    return preset.minutes * 60 / preset.config.kimg
