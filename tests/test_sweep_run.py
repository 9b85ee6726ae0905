"""Sweeps while they run: processes, stops, kills, failures, and what the same command does next."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fact_metrics.base.errors import UserError
from fact_train import run_folder
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import PRESETS
from fact_train.sweeps import sweep as sweeps
from fact_train.sweeps.estimate import estimate
from fact_train.sweeps.plan import PlannedRun
from fact_train.sweeps.progress import CONFLICT, DIVERGED, NEW, PARTIAL, TRAINED, last_tick, read_progress
from fact_train.sweeps.sweep import run_sweep, stand
from fact_train.sweeps.worker import Outcome, Task, run_task
from fact_train.training.loop import train
from fact_train.training.run import NonFiniteLoss

PRESET = "mnist-stylegan2"


class Seen:
    """A Watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, run: PlannedRun) -> None:
        self.events.append(("started", run.name))

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        self.events.append((outcome.reason if not outcome.ok else "ok", run.name))

    def look(self, running) -> None:
        pass


def planned(folder: Path, config: TrainConfig) -> PlannedRun:
    return PlannedRun(PRESET, config, folder)


# Progress of folders


def train_here(run: PlannedRun, **changes):
    config = dataclasses.replace(run.config, **changes)
    label = run_folder.run_label(PRESET, PRESETS[PRESET].config, config)
    return train(config, run.outdir, preset=PRESET, label=label)


def test_a_run_is_new_partial_and_trained_in_turn(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = planned(tmp_path / "r", dataclasses.replace(tiny_config, kimg=1.04, kimg_per_tick=0.5))
    assert read_progress(run).state == NEW
    train_here(run, kimg=1)
    assert read_progress(run) == dataclasses.replace(read_progress(run), state=PARTIAL, kimg=1.0)
    train_here(run)
    assert read_progress(run).state == TRAINED and read_progress(run).kimg == 1.04
    shorter = dataclasses.replace(run, config=dataclasses.replace(run.config, kimg=0.5))
    assert read_progress(shorter).state == TRAINED


def test_snapshots_of_one_kimg_are_told_by_their_images(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = planned(tmp_path / "r", tiny_config)  # 0.2 kimg, so that every snapshot is number 000000
    train_here(run, kimg=0.1)
    assert read_progress(run).state == PARTIAL
    train_here(run)
    assert read_progress(run).state == TRAINED


def test_a_folder_with_another_run_is_named_with_the_field(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = planned(tmp_path / "r", tiny_config)
    train_here(run)
    other = planned(tmp_path / "r", dataclasses.replace(tiny_config, r1_gamma=3.0))
    found = read_progress(other)
    assert found.state == CONFLICT and "r1_gamma is 10.0 there and 3.0 here" in found.why
    assert read_progress(dataclasses.replace(run, config=dataclasses.replace(tiny_config, seed=5))).state == (
        CONFLICT
    )
    (tmp_path / "r" / "training_options.json").write_text("{")
    assert read_progress(run).state == CONFLICT and "cannot be read" in read_progress(run).why


def test_a_damaged_snapshot_is_named(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = planned(tmp_path / "r", tiny_config)
    path = train_here(run).snapshot
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=path.name):
        run_folder.snapshot_nimg(path)
    assert path.name in read_progress(run).why


def test_a_diverged_run_is_not_started_again_and_a_later_success_clears_it(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = planned(tmp_path / "r", dataclasses.replace(tiny_config, g_lr=1e30, kimg=0.1))
    with pytest.raises(NonFiniteLoss):
        train_here(run)
    found = read_progress(run)
    assert found.state == DIVERGED and "is not finite at step" in found.why
    standing = stand([run], is_scored=lambda run: True)
    assert standing.stuck == [run] and standing.due == []
    train_here(run, kimg=0)
    assert not (tmp_path / "r" / "diverged.json").exists()


def test_the_estimate_comes_from_runs_here_otherwise_from_the_preset(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(PRESETS[PRESET].config, device="cpu")
    new = planned(tmp_path / "new", config)
    progress = {"new": read_progress(new)}
    unmeasured = estimate([new], [new], progress)
    assert unmeasured.minutes == pytest.approx(PRESETS[PRESET].minutes * 2 / 1.4)
    assert unmeasured.kimg == 100 and unmeasured.run_mb is None and unmeasured.measured == 0
    on_gpu = planned(tmp_path / "new", dataclasses.replace(config, device="cuda"))
    assert estimate([on_gpu], [on_gpu], progress).minutes is None

    done = planned(tmp_path / "done", tiny_config)
    train_here(done)
    speed = last_tick(done.outdir)["Timing/sec_per_kimg"]
    measured = estimate([new], [new, done], progress | {"done": read_progress(done)})
    assert measured.minutes == pytest.approx(100 * speed / 60)
    size = sum(p.stat().st_size for p in done.outdir.iterdir() if p.is_file()) / 1e6
    assert measured.run_mb == pytest.approx(size)
    assert f"{size:.0f} MB per run" in measured.describe(2)[2]


# Tasks


def task(folder: Path, code: str, name: str = "t") -> Task:
    command = (sys.executable, "-c", code)
    return Task(name, command, folder / f"{name}.log", folder / "stop", environment={"GREETING": "hi"})


def test_a_task_runs_in_its_environment_and_its_last_line_is_the_reason(tmp_path: Path) -> None:
    code = "import os; print(os.environ['GREETING'])"
    assert run_task(task(tmp_path, code)).ok and (tmp_path / "t.log").read_text() == "hi\n"
    failed = run_task(task(tmp_path, "print('no room\\n'); raise SystemExit(3)"))
    assert (failed.exit_code, failed.reason) == (3, "no room") and not failed.stopped
    assert run_task(task(tmp_path, "raise SystemExit(4)")).reason == "exit code 4"
    assert (tmp_path / "t.log").read_text() == "hi\nno room\n\n"


def test_a_killed_task_is_said_in_one_line(tmp_path: Path) -> None:
    killed = run_task(task(tmp_path, "import os; os.kill(os.getpid(), 9)"))
    assert killed.reason.startswith("killed by SIGKILL; the system kills") and not killed.stopped


def test_the_stop_file_ends_a_task_and_prevents_the_next(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_task, task(tmp_path, "import time; time.sleep(60)"))
        time.sleep(1)
        (tmp_path / "stop").touch()
        outcome = future.result(timeout=20)
    assert outcome.stopped and outcome.exit_code == -signal.SIGTERM
    assert run_task(task(tmp_path, "raise SystemExit(3)")) == Outcome("t", 75, 0.0)


# Sweeps of small scripts


@pytest.fixture
def scripts(monkeypatch):
    """Runs whose command is a Python script instead of fact-train."""
    codes: dict[str, str] = {}

    def command(run: PlannedRun, **_) -> list[str]:
        return [run.name]

    def worker(module: str, arguments: list[str]) -> list[str]:
        return [sys.executable, "-c", codes[arguments[0]]]

    monkeypatch.setattr(PlannedRun, "command", command)
    monkeypatch.setattr(sweeps, "worker_command", worker)
    monkeypatch.setattr(sweeps, "LOOK", 0.1)
    return codes


def small_sweep(codes: dict[str, str], folder: Path, *, jobs: int = 2, seconds: float | None = None):
    runs = [planned(folder / name, TrainConfig(seed=i)) for i, name in enumerate(codes)]
    seen = Seen()
    result = run_sweep(
        runs,
        ThreadPoolExecutor(jobs),
        root=folder,
        metrics_of=lambda run: (),
        watcher=seen,
        seconds=seconds,
    )
    return result, seen


def names(runs) -> list[str]:
    return sorted(run.name for run in runs)


def test_failures_and_kills_stop_nothing(scripts, tmp_path: Path) -> None:
    scripts |= {
        "a": "raise SystemExit('no such data')",
        "b": "import os; os.kill(os.getpid(), 9)",
        "c": "",
        "d": "import os; assert os.environ['OMP_NUM_THREADS'] == '1'",
    }
    result, seen = small_sweep(scripts, tmp_path)
    assert names(result.done) == ["c", "d"] and result.exit_code == 1
    reasons = {run.name: reason for run, reason in result.failed}
    assert reasons["a"] == "no such data" and reasons["b"].startswith("killed by SIGKILL")
    assert ("no such data", "a") in seen.events and ("ok", "c") in seen.events


def test_after_its_minutes_a_sweep_stops_what_runs_and_starts_nothing(scripts, tmp_path: Path) -> None:
    saves = "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(75)); time.sleep(60)"
    scripts |= {"a": saves, "b": "", "c": saves, "d": saves, "e": ""}
    started = time.monotonic()
    result, seen = small_sweep(scripts, tmp_path, seconds=2)
    assert time.monotonic() - started < 20
    assert names(result.stopped) == ["a", "c", "d", "e"] and names(result.done) == ["b"]
    assert result.exit_code == 75
    assert {name for event, name in seen.events if event == "started"} <= {"a", "b", "c"}
    assert not list((tmp_path / "sweep-logs").glob(".stop*"))


def test_a_signal_to_the_sweep_stops_its_runs(scripts, tmp_path: Path) -> None:
    scripts |= {"a": "import time; time.sleep(60)", "b": "import os; os.kill(os.getppid(), 15)"}
    result, _ = small_sweep(scripts, tmp_path)
    assert result.signum == signal.SIGTERM and result.exit_code == 75
    assert names(result.stopped) == ["a"]
    scripts["b"] = "import os; os.kill(os.getppid(), 2)"
    assert small_sweep(scripts, tmp_path)[0].exit_code == 130


# The command


def arguments(data: str, runs: Path, *more: str) -> list[str]:
    """A sweep over two values of a narrow network."""
    narrow = ["--preset", PRESET, "--channel-base=64", "--channel-max=8", "--batch=8", "--mbstd-group-size=4"]
    often = ["--kimg=1", "--kimg-per-tick=0.1", "--snapshot-ticks=1", "--image-ticks=50", "--device=cpu"]
    axes = ["--axis=r1_gamma=1,2", "--seeds=0", "--jobs=2"]
    return ["sweep", *narrow, *often, *axes, f"--data={data}", f"--runs={runs}", *more]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fact_train", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def trains(folder: Path) -> list[int]:
    """Processes that train below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--outdir={folder}" in (text := path.read_text()) and "attached" in text:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds: float = 90.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value


def has_checkpoint(folder: Path) -> bool:
    return bool(list(folder.glob("*/training-state-*.pt")))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told of their parent's death on Linux")
def test_a_killed_worker_and_a_killed_sweep_leave_runs_that_the_same_command_finishes_bitwise(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    killed = arguments(tiny_config.data, tmp_path / "killed")
    sweep = start(killed)
    wait_for(lambda: has_checkpoint(tmp_path / "killed"))
    os.kill(trains(tmp_path / "killed")[0], signal.SIGKILL)  # a worker
    time.sleep(1.5)
    os.kill(sweep.pid, signal.SIGKILL)
    printed = sweep.communicate()[1]
    assert "FAILED" in printed and "killed by SIGKILL" in printed
    wait_for(lambda: not trains(tmp_path / "killed"))
    last = "network-snapshot-000001.safetensors"
    assert not all((p / last).exists() for p in (tmp_path / "killed").glob("mnist*"))
    again = start(killed)
    assert "0 failed, 0 left" in again.communicate()[1] and again.returncode == 0
    whole = start(arguments(tiny_config.data, tmp_path / "whole"))
    assert whole.wait() == 0
    folders = sorted(p.name for p in (tmp_path / "whole").glob("mnist*"))
    assert len(folders) == 2
    for name in folders:
        snapshots = [tmp_path / side / name / last for side in ("killed", "whole")]
        assert snapshots[0].read_bytes() == snapshots[1].read_bytes(), name
        ticks = [
            [json.loads(line)["nimg"] for line in (path.parent / "stats.jsonl").read_text().splitlines()]
            for path in snapshots
        ]
        assert ticks[0][-1] == ticks[1][-1] == 1000 and len(set(ticks[0])) == len(ticks[0])
    nothing = start(killed)
    assert "nothing left to do" in nothing.communicate()[1] and nothing.returncode == 0
