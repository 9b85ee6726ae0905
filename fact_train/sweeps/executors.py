"""EXECUTORS: where the tasks of a sweep run. Each entry opens a concurrent.futures.Executor."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from types import ModuleType

from fact_metrics.base.errors import UsageError, unknown_name
from fact_metrics.base.extras import need
from fact_train.sweeps.room import RETRIES, Room
from fact_train.sweeps.worker import Outcome, Task


class LocalExecutor(ThreadPoolExecutor):
    """This machine: `jobs` processes at a time, each started and awaited by a thread."""

    def __init__(self, room: Room) -> None:
        super().__init__(room.jobs)
        self._places: SimpleQueue[dict[str, str]] = SimpleQueue()
        for i in range(room.jobs):
            gpu = room.gpus[i % len(room.gpus)] if room.gpus else None
            self._places.put({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})

    def submit(self, fn: Callable[[Task], Outcome], /, task: Task) -> Future:
        return super().submit(self._in_place, fn, task)

    def _in_place(self, fn: Callable[[Task], Outcome], task: Task) -> Outcome:
        place = self._places.get()
        try:
            return fn(replace(task, environment={**task.environment, **place}))
        finally:
            self._places.put(place)


class RayExecutor(ThreadPoolExecutor):
    """A Ray cluster: `jobs` tasks at a time. Ray starts the task of a lost node again on another one."""

    def __init__(self, room: Room, ray: ModuleType) -> None:
        super().__init__(room.jobs)
        self._ray = ray
        self._options = {
            "num_cpus": room.threads,
            "num_gpus": 1 / room.runs_per_gpu if room.on_gpu else 0,
            "max_retries": RETRIES,
        }

    def submit(self, fn: Callable[[Task], Outcome], /, task: Task) -> Future:
        return super().submit(self._remote, fn, task)

    def _remote(self, fn: Callable[[Task], Outcome], task: Task) -> Outcome:
        remote = self._ray.remote(fn).options(**self._options, name=task.name)
        return self._ray.get(remote.remote(task))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait and self._ray.is_initialized():
            self._ray.shutdown()


def open_local(room: Room) -> Executor:
    """Processes of this machine."""
    return LocalExecutor(room)


def open_ray(room: Room) -> Executor:
    """The cluster of RAY_ADDRESS or the one that runs here; otherwise one that lives as long as the sweep."""
    ray = need("ray", "ray", "--executor ray")
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": "error"}
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            gpus = len(room.gpus) if room.on_gpu else 0
            cpus = room.jobs * room.threads
            ray.init(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **quiet)
    return RayExecutor(room, ray)


def open_slurm(room: Room) -> Executor:
    """A job array of Slurm. sbatch reads the partition, account and time limit from SBATCH_ variables."""
    import shutil

    need("submitit", "slurm", "--executor slurm")
    if shutil.which("sbatch") is None:
        raise UsageError(
            "--executor slurm: sbatch is missing on this machine; start the sweep on a Slurm login node."
        )
    if room.runs_per_gpu > 1:
        raise UsageError(f"--runs-per-gpu {room.runs_per_gpu}: Slurm gives a whole GPU to each job.")
    from fact_train.sweeps.slurm import SlurmExecutor

    return SlurmExecutor(room, cluster="slurm")


EXECUTORS: dict[str, Callable[[Room], Executor]] = {
    "local": open_local,
    "slurm": open_slurm,
    "ray": open_ray,
}


def check_executor(name: str) -> None:
    """UsageError for an unknown name."""
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)


def open_executor(name: str, room: Room) -> Executor:
    """The executor of this name with that room."""
    check_executor(name)
    return EXECUTORS[name](room)
