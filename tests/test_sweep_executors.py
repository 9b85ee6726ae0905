"""The executors of sweeps: GPUs in turn, jobs that end early and start again, a node that is lost."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from fact_metrics.base.errors import UsageError
from fact_train.run_folder import run_label
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS
from fact_train.sweeps import executors, room
from fact_train.sweeps.executors import EXECUTORS, open_executor
from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.room import Gpu, Room, find_room, fitting_runs, parse_gpus, run_gb
from fact_train.sweeps.sweep import run_sweep
from fact_train.sweeps.worker import Outcome, Task, run_task, worker_command
from fact_train.training.loop import train

PRESET = "mnist-stylegan2"
GPUS = "0, GPU-aa, 10000\n1, GPU-bb, 40000\n"


def task(folder: Path, name: str, code: str) -> Task:
    return Task(name, (sys.executable, "-c", code), folder / f"{name}.log", folder / "stop", cwd=folder)


def planned(folder: Path, **changes) -> PlannedRun:
    return PlannedRun(PRESET, dataclasses.replace(PRESETS[PRESET].config, **changes), folder)


# GPUs


def test_gpus_are_used_in_turn_and_equally_at_any_time(tmp_path: Path) -> None:
    running: list[str] = []
    together = threading.Barrier(4)

    def take(task: Task) -> Outcome:
        together.wait(timeout=10)
        running.append(task.environment["CUDA_VISIBLE_DEVICES"])
        return Outcome(task.name, 0, 0.1)

    with open_executor("local", Room(4, tmp_path, gpus=("a", "b"))) as executor:
        futures = [executor.submit(take, task(tmp_path, str(i), "")) for i in range(8)]
    assert all(future.result().ok for future in futures)
    assert sorted(running[:4]) == sorted(running[4:]) == ["a", "a", "b", "b"]


def test_without_gpus_the_environment_is_left_alone(tmp_path: Path) -> None:
    with open_executor("local", Room(1, tmp_path)) as executor:
        environment = executor.submit(lambda task: task.environment, task(tmp_path, "t", "")).result()
    assert environment == {}


def test_the_gpus_are_those_that_this_process_may_use() -> None:
    assert parse_gpus(GPUS, None) == [Gpu("GPU-aa", 10.48576), Gpu("GPU-bb", 41.94304)]
    assert [gpu.name for gpu in parse_gpus(GPUS, "1,0")] == ["GPU-bb", "GPU-aa"]
    assert [gpu.name for gpu in parse_gpus(GPUS, "GPU-bb")] == ["GPU-bb"]
    assert parse_gpus(GPUS, "") == []


def test_as_many_runs_share_a_gpu_as_fit_into_its_free_memory(tmp_path: Path, monkeypatch) -> None:
    gpus = parse_gpus(GPUS, None)
    assert fitting_runs(gpus, 2.0) == 4  # 0.9 x 10.5 GB on the fuller one
    assert fitting_runs(gpus, 100.0) == fitting_runs(gpus, None) == 1
    run = planned(tmp_path / "r", device="cuda", threads=1)
    assert run_gb([run]) == PRESETS[PRESET].memory_gb + room.CONTEXT_GB
    (tmp_path / "r").mkdir()
    tick = {"nimg": 1, "Timing/sec_per_kimg": 2.0, "Timing/img_per_sec": 500.0, "Resources/peak_mem_gb": 3.0}
    (tmp_path / "r" / "stats.jsonl").write_text(json.dumps(tick) + "\n")
    assert run_gb([run]) == pytest.approx(3 * 1.0737 + room.CONTEXT_GB, abs=1e-3)

    monkeypatch.setattr(room, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(room.os, "sched_getaffinity", lambda _: range(16))
    on_gpu = dict(devices={"cuda"}, threads=1, gb=run_gb([run]))
    found = find_room("local", tmp_path, **on_gpu)
    assert (found.runs_per_gpu, found.jobs, found.gpus) == (2, 4, ("GPU-aa", "GPU-bb"))
    assert find_room("local", tmp_path, **on_gpu, runs_per_gpu=20).jobs == 16  # the cores
    assert find_room("local", tmp_path, **on_gpu, jobs=7).jobs == 7
    assert find_room("slurm", tmp_path, **on_gpu).runs_per_gpu == 1
    on_cpu = dict(devices={"cpu"}, threads=2)
    assert find_room("local", tmp_path, **on_cpu).jobs == 8
    assert find_room("local", tmp_path, **on_cpu).gpus == ()
    with pytest.raises(UsageError, match="--runs-per-gpu 2 needs --device cuda"):
        find_room("local", tmp_path, **on_cpu, runs_per_gpu=2)


# Names and extras


@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_one_line_with_its_command(name: str, module: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {module}: pip install 'fact-stylegan\[{name}\]'"):
        open_executor(name, Room(1, tmp_path))


def test_an_unknown_executor_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown executor 'slrum'; did you mean slurm"):
        open_executor("slrum", Room(1, tmp_path))
    assert set(EXECUTORS) == {"local", "slurm", "ray"}


def test_slurm_needs_sbatch_and_whole_gpus(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is missing on this machine"):
        open_executor("slurm", Room(1, tmp_path))
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(UsageError, match="--runs-per-gpu 2: Slurm gives a whole GPU"):
        open_executor("slurm", Room(1, tmp_path, on_gpu=True, runs_per_gpu=2))


def test_a_run_survives_the_warning_that_slurm_sends_to_all_processes_of_a_job(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('up').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.05)\n"
    )
    process = subprocess.Popen(worker_command("slow", []), cwd=tmp_path)
    wait_for((tmp_path / "up").exists)
    process.send_signal(signal.SIGUSR2)
    time.sleep(0.3)
    (tmp_path / "go").touch()
    assert process.wait(60) == 0


# Slurm, by submitit's executor for one machine


def wait_for(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value


STARTS = (
    "from pathlib import Path; p = Path('{name}.starts')\n"
    "p.write_text((p.read_text() if p.exists() else '') + 's')\n"
)
FIRST_ENDS = STARTS + "raise SystemExit(75 if p.read_text() == 's' else 0)"
SAVES = (
    STARTS
    + "import signal, sys, time\nsignal.signal(15, lambda *a: sys.exit(75))\n"
    + "time.sleep(60 if p.read_text() == 's' else 0)"
)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch):
    pytest.importorskip("submitit")
    from fact_train.sweeps import slurm

    monkeypatch.setattr(slurm, "POLL", 0.2)
    with slurm.SlurmExecutor(Room(2, tmp_path / "jobs"), cluster="local") as executor:
        yield executor


def test_a_job_that_ends_with_75_is_started_again_and_a_failure_is_not(slurm, tmp_path: Path) -> None:
    codes = {"good": STARTS, "again": FIRST_ENDS, "bad": STARTS + "raise SystemExit('no such data')"}
    futures = {
        name: slurm.submit(run_task, task(tmp_path, name, code.replace("{name}", name)))
        for name, code in codes.items()
    }
    outcomes = {name: future.result(timeout=90) for name, future in futures.items()}
    assert outcomes["good"].ok and outcomes["again"].ok
    assert outcomes["bad"].reason == "no such data"
    starts = {name: (tmp_path / f"{name}.starts").read_text() for name in codes}
    assert starts == {"good": "s", "again": "ss", "bad": "s"}


def test_a_lost_job_is_started_again_and_a_stopped_one_is_not(slurm, tmp_path: Path) -> None:
    name = "lost"
    future: Future = slurm.submit(run_task, task(tmp_path, name, SAVES.replace("{name}", name)))
    wait_for(lambda: (tmp_path / "lost.starts").exists() and future.running())
    job = slurm._entries[0].job
    wait_for(lambda: job.cancel() or job.done())  # a job that is only starting may miss the first signal
    assert future.result(timeout=90).ok
    assert (tmp_path / "lost.starts").read_text() == "ss"

    name = "told"
    future = slurm.submit(run_task, task(tmp_path, name, SAVES.replace("{name}", name)))
    wait_for((tmp_path / "told.starts").exists)
    time.sleep(0.5)
    (tmp_path / "stop").touch()
    assert future.result(timeout=90).stopped
    assert (tmp_path / "told.starts").read_text() == "s"


class RequeuedBySlurm:
    """A job that ended with 75 because of `scontrol requeue`; its result stays on disk until the next end."""

    state = "RUNNING"

    def __init__(self) -> None:
        self.states = ["REQUEUED", "PENDING", "RUNNING"]

    def done(self) -> bool:
        return True

    def exception(self) -> None:
        return None

    def result(self) -> Outcome:
        return Outcome("t", 75 if self.states else 0, 1.0)

    def get_info(self, mode: str) -> dict:
        assert mode == "force"
        return {"State": self.states.pop(0)}


def test_a_job_that_slurm_requeues_is_not_submitted_a_second_time(slurm, tmp_path, monkeypatch) -> None:
    jobs = []

    def start(entries: list) -> None:
        for entry in entries:
            entry.job, entry.starts = RequeuedBySlurm(), entry.starts + 1
            jobs.append(entry.job)

    monkeypatch.setattr(slurm, "_start", start)
    assert slurm.submit(run_task, task(tmp_path, "t", "")).result(timeout=90).ok
    assert len(jobs) == 1 and jobs[0].states == []


def test_before_the_end_of_its_time_a_task_saves_its_state_and_is_submitted_again(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from fact_train.sweeps.slurm import Requeued

    one = task(tmp_path, "t", SAVES.replace("{name}", "t"))
    requeued, outcomes = Requeued(run_task), []
    thread = threading.Thread(target=lambda: outcomes.append(requeued(one)))
    thread.start()
    wait_for((tmp_path / "t.starts").exists)
    time.sleep(0.5)
    again = requeued.checkpoint(one)
    thread.join()
    assert outcomes[0].exit_code == 75
    assert again.function(*again.args, **again.kwargs).ok  # what submitit does in the next job
    assert not list(tmp_path.glob("*.halt"))


# Ray


class Silent:
    def started(self, run) -> None: ...

    def ended(self, run, outcome) -> None: ...

    def look(self, running) -> None: ...


def test_the_runs_of_a_lost_ray_node_finish_elsewhere_with_the_same_snapshots(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    config = dataclasses.replace(tiny_config, kimg=0.8, kimg_per_tick=0.08, image_ticks=50)
    runs = [
        PlannedRun(PRESET, dataclasses.replace(config, seed=seed), tmp_path / f"r{seed}") for seed in (0, 1)
    ]
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        executor = executors.open_ray(Room(2, tmp_path / "ray"))

        def lose() -> None:
            wait_for(lambda: all(list(run.outdir.glob("training-state-*.pt")) for run in runs))
            cluster.remove_node(second, allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        result = run_sweep(runs, executor, root=tmp_path, metrics_of=lambda run: (), watcher=Silent())
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not result.failed and len(result.done) == 2
    logs = [(tmp_path / "sweep-logs" / f"{run.name}.log").read_text() for run in runs]
    assert sum("resuming at" in log for log in logs) == 1
    for run in runs:
        whole = tmp_path / "whole" / run.name
        label = run_label(PRESET, PRESETS[PRESET].config, run.config)
        expected = train(run.config, whole, preset=PRESET, label=label).snapshot
        assert (run.outdir / expected.name).read_bytes() == expected.read_bytes()
