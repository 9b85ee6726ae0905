"""How many runs a machine takes: by its cores, and by the free memory of its GPUs. No torch."""

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fact_metrics.base.errors import UsageError
from fact_train.settings.presets import get_preset
from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.progress import last_tick

CONTEXT_GB = 1.0  # of a process on a GPU, beside what its run allocates
USABLE = 0.9  # share of the free memory that runs may take
FILES = "sweep-logs/executor"  # below the folder of runs
MEASURED = 20  # runs whose memory is read
RETRIES = 3  # starts of a task after its node was lost
SLURM_MINUTES = 24 * 60  # of one job; SBATCH_TIMELIMIT overrides it


@dataclass(frozen=True)
class Room:
    """What the tasks get: `jobs` at a time with `threads` cores each.

    `gpus` are those of this machine, used in turn; `on_gpu` with none of them leaves the choice to a cluster.
    """

    jobs: int
    folder: Path  # of the executor's own files
    threads: int = 1
    gpus: tuple[str, ...] = ()
    on_gpu: bool = False
    runs_per_gpu: int = 1


@dataclass(frozen=True)
class Gpu:
    """A GPU by the name that CUDA_VISIBLE_DEVICES takes."""

    name: str
    free_gb: float


def default_jobs(threads: int | None) -> int:
    """As many tasks of `threads` threads as this machine has cores for; None takes all cores."""
    cores = len(os.sched_getaffinity(0))
    return max(cores // (threads or cores), 1)


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, by nvidia-smi; none where that is missing."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(printed, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(printed: str, visible: str | None) -> list[Gpu]:
    """The GPUs of nvidia-smi's table that CUDA_VISIBLE_DEVICES names, in its order."""
    gpus = {}
    for line in printed.splitlines():
        index, uuid, free = (cell.strip() for cell in line.split(","))
        gpus[index] = gpus[uuid] = Gpu(uuid, float(free) * 2**20 / 1e9)
    if visible is None:
        return list(dict.fromkeys(gpus.values()))
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [gpus[name] for name in names if name in gpus]


def run_gb(runs: Iterable[PlannedRun]) -> float | None:
    """GPU memory of one run: the largest measured one, otherwise that of the preset; None if unknown."""
    measured, presets = [], []
    for run in runs:
        tick = last_tick(run.outdir) if len(measured) < MEASURED else None
        peak = (tick or {}).get("Resources/peak_mem_gb")
        if peak is not None and run.config.device != "cpu":
            measured.append(peak * 2**30 / 1e9)
        presets.append(get_preset(run.preset).memory_gb)
    if measured:
        return max(measured) + CONTEXT_GB
    return None if None in presets or not presets else max(presets) + CONTEXT_GB


def fitting_runs(gpus: Sequence[Gpu], one_run_gb: float | None) -> int:
    """How many runs fit into the fullest of the GPUs; one where the memory of a run is not known."""
    if one_run_gb is None or not gpus:
        return 1
    return max(int(min(gpu.free_gb for gpu in gpus) * USABLE / one_run_gb), 1)


def find_room(
    executor: str,
    root: Path,
    *,
    devices: Collection[str],
    threads: int | None,
    gb: float | None = None,
    jobs: int | None = None,
    runs_per_gpu: int | None = None,
) -> Room:
    """The room for tasks on an executor; what is not given follows from this machine.

    `devices` are those that the tasks ask for; `gb` is the GPU memory of one task. For a cluster with more
    cores than this machine, give `jobs`.
    """
    gpus = visible_gpus()
    on_gpu = "cuda" in devices or ("auto" in devices and bool(gpus))
    if runs_per_gpu is not None and not on_gpu:
        raise UsageError(f"--runs-per-gpu {runs_per_gpu} needs --device cuda.")
    most, threads, folder = default_jobs(threads), threads or 1, root / FILES
    if not on_gpu:
        return Room(jobs or most, folder, threads)
    per_gpu = runs_per_gpu or (1 if executor == "slurm" else fitting_runs(gpus, gb))
    jobs = jobs or min(most, per_gpu * max(len(gpus), 1))
    return Room(jobs, folder, threads, tuple(gpu.name for gpu in gpus), on_gpu, per_gpu)
