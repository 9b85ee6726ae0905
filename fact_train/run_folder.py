"""The run folder: its name, the names of its files, its options, and what may continue in it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
from filelock import FileLock, Timeout

from fact_metrics.base.atomic import write_json
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.git_state import git_state, same_code
from fact_metrics.base.plain_text import check_file_name
from fact_metrics.base.schema import StartShape, TrainingSetShape, read_document
from fact_metrics.base.tensor_files import read_metadata
from fact_train.settings.config import TrainConfig, differing_fields, fields_of, flag

SCHEMA = 1
OPTIONS_FILE = "training_options.json"
DIVERGED_FILE = "diverged.json"  # why training cannot go on; a start removes it
SHOWN_OF_DATA = ("n", "resolution", "channels", "classes", "labels")  # in a message that data differs
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors")


class SchemaShape(msgspec.Struct):
    """Any version of a document."""

    schema: int


class ProgressShape(msgspec.Struct):
    """The metadata of a snapshot, as far as its progress is read."""

    nimg: int


class ClassifierShape(msgspec.Struct):
    """A classifier's card, as far as a resume compares it."""

    weights_sha256: str


class InitShape(msgspec.Struct):
    """The checkpoint that a run started from, as far as a resume compares it."""

    sha256: str


class OptionsShape(StartShape, kw_only=True):
    """training_options.json, as far as it is read again; TrainConfig checks `config`."""

    schema: Literal[1]
    run_id: str
    preset: str
    label: str
    config: dict[str, Any]
    config_sha256: str
    seed: int
    dataset: TrainingSetShape
    classifier: ClassifierShape | None = None
    init: InitShape | None = None
    argv: list[str] | None = None
    resumed: list[StartShape] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        check_file_name(self.run_id, "run_id")
        if self.run_id.startswith("."):
            raise ValueError(f"run_id {self.run_id} cannot name a visible file")
        needed = ("data", "model")
        if missing := [name for name in needed if not isinstance(self.config.get(name), str)]:
            raise ValueError(f"config: {missing[0]} is missing")


class MeanShape(msgspec.Struct):
    """A term of a tick."""

    mean: float
    num: int


class TickShape(msgspec.Struct, kw_only=True):
    """A line of stats.jsonl, as far as it is read again."""

    nimg: int
    sec_per_kimg: float | msgspec.UnsetType = msgspec.field(name="Timing/sec_per_kimg", default=msgspec.UNSET)
    img_per_sec: float | msgspec.UnsetType = msgspec.field(name="Timing/img_per_sec", default=msgspec.UNSET)
    peak_gb: float | msgspec.UnsetType = msgspec.field(name="Resources/peak_mem_gb", default=msgspec.UNSET)
    spikes: MeanShape | msgspec.UnsetType = msgspec.field(name="Rec/spikes", default=msgspec.UNSET)


class TimedTickShape(TickShape, kw_only=True):
    """A tick that says how fast it was, as all ticks of a run do."""

    sec_per_kimg: float = msgspec.field(name="Timing/sec_per_kimg")


class ConfigConflict(UsageError):
    """The folder holds a run of another configuration."""


class LostState(UsageError):
    """The folder holds snapshots of a run and no training state to go on from."""


def run_label(preset: str, preset_cfg: TrainConfig, cfg: TrainConfig) -> str:
    """`<preset>[-<changed axes>]`: the name of the configuration without its seed."""
    changed = [f for f in fields_of("science") if f.name != "seed"]
    changed = [f.name for f in changed if getattr(cfg, f.name) != getattr(preset_cfg, f.name)]
    axes = [f"{name}={_short(getattr(cfg, name))}" for name in changed]
    return "-".join([preset, *axes])


def default_outdir(preset: str, label: str, seed: int) -> Path:
    """runs/<preset>-seed<seed>[-<changed axes>]: the same command finds the same folder."""
    return Path("runs") / f"{preset}-seed{seed}{label.removeprefix(preset)}"


def snapshot_name(nimg: int) -> str:
    """File name of the snapshot at `nimg` images."""
    return f"network-snapshot-{nimg // 1000:06d}.safetensors"


def checkpoint_name(nimg: int) -> str:
    """File name of the checkpoint (the full training state) at `nimg` images."""
    return f"training-state-{nimg:09d}.pt"


def checkpoint_nimg(path: Path) -> int | None:
    """Images in a checkpoint's name; None for another file. Older versions named them by kimg: six digits."""
    match = re.fullmatch(r"training-state-(\d+)\.pt", path.name)
    if match is None:
        return None
    return int(match[1]) * (1 if len(match[1]) > 8 else 1000)


def list_checkpoints(outdir: Path) -> list[Path]:
    """Checkpoints of a run folder, oldest first."""
    named = ((checkpoint_nimg(path), path) for path in Path(outdir).glob("training-state-*.pt"))
    return [path for _, path in sorted(item for item in named if item[0] is not None)]


def list_snapshots(outdir: Path) -> list[Path]:
    """Snapshots of a run folder, oldest first."""
    return sorted(Path(outdir).glob("network-snapshot-*.safetensors"))


def snapshot_nimg(path: Path) -> int:
    """Images that a snapshot has been trained on, from its header. UserError if the file is damaged."""
    return read_metadata(path, "fact", ProgressShape, what="snapshot", way_out="delete it.")["nimg"]


@contextmanager
def locked(outdir: Path) -> Iterator[None]:
    """Lock a run folder for one process; UsageError where another process trains in it.

    The lock of a killed process is free. Half-written files that it left are removed.
    """
    new = not Path(outdir).exists()
    try:
        Path(outdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--outdir {outdir} cannot be made: {error.strerror}.") from error
    lock = FileLock(Path(outdir) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another process is training in {outdir}; wait for it, or choose --outdir."
        ) from None
    try:
        for partial in Path(outdir).glob(".*.partial-*"):
            partial.unlink()
        yield
    finally:
        lock.release()
        with suppress(OSError):  # a disk that turned read-only keeps the file; nobody holds the lock
            Path(lock.lock_file).unlink(missing_ok=True)
            if new and not any(Path(outdir).iterdir()):
                Path(outdir).rmdir()


def check_folder(outdir: Path, cfg: TrainConfig) -> None:
    """Raise what `prepare` would raise, as far as it can be told without the data; writes nothing.

    LostState where the states of a run are gone: training would start again and write over its snapshots.
    """
    if not (Path(outdir) / OPTIONS_FILE).exists():
        return
    _refuse_other_fields(outdir, TrainConfig.from_dict(read_options(outdir)["config"]), cfg)
    snapshots = list_snapshots(outdir)
    if snapshots and not list_checkpoints(outdir) and snapshot_nimg(snapshots[-1]) > 0:
        raise LostState(
            f"{outdir} holds {len(snapshots)} snapshots, the newest {snapshots[-1].name}, and no "
            "training-state file to continue from. Restore one, choose another --outdir, or delete the "
            "folder to train again."
        )


def prepare(
    outdir: Path,
    cfg: TrainConfig,
    *,
    preset: str,
    label: str,
    dataset: dict[str, Any],
    classifier: dict[str, Any] | None = None,
    machine: dict[str, Any] | None = None,
    init: dict[str, Any] | None = None,
) -> str:
    """Write the folder's training_options.json, or check that it agrees; returns the run id.

    `classifier` is the card of the one that a StylEx run explains. `machine` is what decides the
    last bits of the first start: device, CPU threads, number of processes. `init` describes the checkpoint
    that the run starts from; a run that goes on from its own state does not read it.
    ConfigConflict names the fields in which the folder's run differs; schedule and machine fields may differ.
    """
    path = Path(outdir) / OPTIONS_FILE
    if path.exists():
        options = read_options(outdir)
        _refuse_other_classifier(outdir, options.get("classifier"), classifier, cfg)
        _refuse_other_init(outdir, options.get("init"), init, cfg)
        _refuse_conflict(outdir, TrainConfig.from_dict(options["config"]), cfg, options["dataset"], dataset)
        options["config"] = cfg.to_dict()
        write_json(path, options)
        return options["run_id"]
    if any(not p.name.startswith(".") for p in Path(outdir).iterdir()):
        raise UsageError(f"--outdir {outdir} is not empty and holds no run; choose another folder.")
    run_id = f"{label}-seed{cfg.seed}-{cfg.sha256()[:8]}"
    write_json(
        path,
        {
            "schema": SCHEMA,
            "run_id": run_id,
            "preset": preset,
            "label": label,
            "config": cfg.to_dict(),
            "config_sha256": cfg.sha256(),
            "seed": cfg.seed,
            "dataset": dataset,
            **({} if classifier is None else {"classifier": classifier}),
            **({} if init is None else {"init": init}),
            "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
            **_this_start(machine or {}),
        },
    )
    return run_id


def note_start(outdir: Path, *, nimg: int, machine: dict[str, Any]) -> list[str]:
    """Add a start of training at `nimg` images to the options' `resumed`, before it trains.

    A start with the code, packages and machine of the start before adds nothing: the two are one start.
    Returns a warning for everything of the machine that changed: the last bits depend on it.
    """
    path = Path(outdir) / OPTIONS_FILE
    options = read_options(outdir)
    last, start = (options.get("resumed") or [options])[-1], _this_start(machine)
    if same_code(last.get("git"), start["git"]):
        start["git"] = last.get("git")
    changed = [key for key in ("git", "packages", *machine) if last.get(key) != start[key]]
    if changed:
        options["resumed"] = [*options.get("resumed", []), {"kimg": nimg / 1000, **start}]
        write_json(path, options)
    return [
        f"{key.replace('_', ' ')} was {last[key]} and is now {start[key]}: the result differs by rounding "
        "from that of an uninterrupted run"
        for key in changed
        if key in machine and last.get(key) is not None
    ]


def last_threads(outdir: Path) -> int | None:
    """CPU threads of the run's latest start; None for a new run or where they are not recorded."""
    if not (Path(outdir) / OPTIONS_FILE).is_file():
        return None
    options = read_options(outdir)
    return (options.get("resumed") or [options])[-1].get("threads")


def read_options(outdir: Path) -> dict[str, Any]:
    """The training_options.json of a run folder.

    UsageError where it is missing, UserError where it is damaged or of a newer version.
    """
    path, way_out = Path(outdir) / OPTIONS_FILE, "restore it, or train into another --outdir."
    if not path.is_file():
        raise UsageError(f"{outdir} is not a run folder: it has no {OPTIONS_FILE}.")
    try:
        written = read_document(path, SchemaShape, way_out=way_out)["schema"]
        if written > SCHEMA:
            raise UserError(
                f"{path} was written by a newer version (schema {written}); update fact-stylegan."
            )
        return read_document(path, OptionsShape, way_out=way_out)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _this_start(machine: dict[str, Any]) -> dict[str, Any]:
    return {
        **machine,
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "git": git_state(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _refuse_conflict(
    outdir: Path, there: TrainConfig, here: TrainConfig, dataset_there: dict, dataset_here: dict
) -> None:
    _refuse_other_fields(outdir, there, here)
    if dataset_there["sha256"] != dataset_here["sha256"]:
        differing = [key for key in SHOWN_OF_DATA if dataset_there.get(key) != dataset_here.get(key)]
        shown = "".join(f", {key} {dataset_there.get(key)} and {dataset_here.get(key)}" for key in differing)
        raise ConfigConflict(
            f"{outdir} holds a run on other data: dataset hash {dataset_there['sha256'][:12]} there, "
            f"{dataset_here['sha256'][:12]} in {here.data} now{shown}. Choose another --outdir, or "
            "restore the data."
        )


def _refuse_other_fields(outdir: Path, there: TrainConfig, here: TrainConfig) -> None:
    fields = differing_fields(there, here)
    if fields:
        shown = "; ".join(f"{f} is {getattr(there, f)} there and {getattr(here, f)} here" for f in fields)
        raise ConfigConflict(
            f"{outdir} holds another run: {shown}. Choose another --outdir, or drop {flag(fields[0])}."
        )


def _refuse_other_classifier(
    outdir: Path, there: dict[str, Any] | None, here: dict[str, Any] | None, cfg: TrainConfig
) -> None:
    if there is None or here is None or there["weights_sha256"] == here["weights_sha256"]:
        return
    raise ConfigConflict(
        f"{outdir} holds a run that explains another classifier: {there['weights_sha256'][:12]} there, "
        f"{here['weights_sha256'][:12]} in {cfg.classifier} now. Choose another --outdir, or restore it."
    )


def _refuse_other_init(
    outdir: Path, there: dict[str, Any] | None, here: dict[str, Any] | None, cfg: TrainConfig
) -> None:
    if there is None or here is None or there["sha256"] == here["sha256"]:
        return
    raise ConfigConflict(
        f"{outdir} holds a run from another checkpoint: {there['sha256'][:12]} there, {here['sha256'][:12]} "
        f"in {cfg.init} now. Choose another --outdir, or restore it."
    )


def _short(value: Any) -> str:
    text = Path(value).stem if isinstance(value, str) and "/" in value else str(value)
    return "".join(ch if ch.isalnum() or ch in "._" else "_" for ch in text)
