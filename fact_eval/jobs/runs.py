"""Run folders of fact-train and their snapshots. Reads no weights and does not import torch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.file_hashes import file_sha256
from fact_metrics.base.schema import BadDocument, decode
from fact_train.run_folder import OPTIONS_FILE as OPTIONS
from fact_train.run_folder import TimedTickShape, read_options

STATS = "stats.jsonl"
SNAPSHOT = re.compile(r"network-snapshot-(\d{6,})\.safetensors")


@dataclass(frozen=True)
class Run:
    """A run folder and its training options."""

    folder: Path
    options: dict

    @property
    def run_id(self) -> str:
        return self.options["run_id"]

    @property
    def label(self) -> str:
        """The row's name on a board: equal for runs that differ only in the training seed."""
        return self.options["label"]

    @property
    def config(self) -> dict:
        return self.options["config"]

    def training_seconds(self, kimg: float) -> float | None:
        """Seconds that training took up to a snapshot, by the ticks of stats.jsonl; None without any."""
        seconds, before = 0.0, 0
        try:
            lines = (self.folder / STATS).read_bytes().splitlines()
        except FileNotFoundError:
            return None
        for line in lines:
            try:
                tick = decode(line, TimedTickShape, STATS, way_out="remove the line")
            except BadDocument:  # a torn or foreign line
                continue
            if tick.nimg // 1000 <= kimg:
                seconds += tick.sec_per_kimg * (tick.nimg - before) / 1000
                before = tick.nimg
        return round(seconds, 1) if before else None

    def snapshots(self) -> list["SnapshotFile"]:
        """Snapshots from the first to the newest."""
        matches = [(SNAPSHOT.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((SnapshotFile(path, int(m.group(1))) for m, path in matches if m), key=lambda s: s.kimg)


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot by its file name."""

    path: Path
    kimg: int

    def sha256(self) -> str:
        """Hash of the file's bytes, equal to `Snapshot.sha256`; does not load the network."""
        return file_sha256(self.path)


def find_runs(paths: Iterable[Path], *, problems: list[str] | None = None) -> list[Run]:
    """Every run at or under the paths, each once, sorted by folder.

    Raises UsageError for a missing path or if there is no run. Unreadable options go to `problems` if it is
    given and other runs exist; otherwise they raise UserError.
    """
    runs: dict[Path, Run] = {}
    paths = [Path(path) for path in paths]
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a run folder or a folder of runs, such as runs/")
        if not path.is_dir():
            raise UsageError(f"{path} is a file; give the run folder that holds it")
        for options in sorted(path.rglob(OPTIONS)):
            try:
                runs.setdefault(options.resolve(), read_run(options.parent))
            except UserError as error:
                if problems is None:
                    raise
                problems.append(str(error))
    if not runs and problems:
        raise UserError(problems[0])
    if not runs:
        where = ", ".join(map(str, paths))
        raise UsageError(
            f"no run in {where} (no {OPTIONS} at any depth); fact-train --preset mnist trains one"
        )
    return sorted(runs.values(), key=lambda run: run.folder)


def read_run(folder: Path) -> Run:
    """The run of one folder. UserError if its options cannot be read, UsageError if there are none."""
    options = read_options(folder)
    config = options["config"]
    if config["model"] == "stylex" and not {"branches", "rec_in_d_phase"} <= config.keys():
        raise UserError(f"{Path(folder) / OPTIONS} is of a StylEx run without its settings; restore it")
    return Run(Path(folder), options)


def choose_snapshots(run: Run, which: str) -> list[SnapshotFile]:
    """`latest`, `all`, or a kimg. UserError if the run has no snapshot, UsageError if not this one."""
    snapshots = run.snapshots()
    if not snapshots:
        raise UserError(f"{run.folder} has no snapshot yet; continue its training")
    if which == "latest":
        return snapshots[-1:]
    if which == "all":
        return snapshots
    if not which.isdigit():
        raise UsageError(f"--snapshot {which!r}: give latest, all, or a number of kimg")
    chosen = [s for s in snapshots if s.kimg == int(which)]
    if not chosen:
        raise UsageError(f"--snapshot {which}: {run.folder} has {', '.join(str(s.kimg) for s in snapshots)}")
    return chosen
