"""Aggregate images per second of several small runs that share one GPU, by their number.

Each run is a process of its own on one CPU thread, as `fact-train` is. All processes start once and warm up,
and then the first n of them are timed over the same seconds, the others idle. Without CUDA's multi-process
service (MPS) the GPU takes turns between processes. With the service, CUDA_MPS_PIPE_DIRECTORY is set and the
result says so. This benchmark starts no service and changes no setting of the device.
"""

import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator

from benchmarks.gpu.report import Bench, Result, fitting, markdown

PRESET = "mnist-stylegan2"
# (processes, mode), the most telling first
CASES = [(1, "eager"), (8, "eager"), (16, "eager"), (1, "graphs"), (8, "graphs"), (16, "graphs")]
CASES += [(4, "graphs"), (2, "graphs"), (4, "eager"), (2, "eager")]
SECONDS = 4.0  # of a measurement
START_SHARE = 0.6  # of the part's time: processes that start later than that do not take part


def measure(bench: Bench) -> Iterator[Result]:
    """A result per number of processes and mode: the sum of their images per second."""
    cases = [(1, "eager"), (2, "eager")] if bench.dry else CASES
    seconds = 0.3 if bench.dry else SECONDS
    workers = Workers(max(n for n, _ in cases), bench)
    try:
        modes = workers.wait_until_ready(bench.seconds_left * START_SHARE)
        ready = len(workers.processes)
        bench.left_out += [f"{n} x {mode}" for n, mode in cases if n > ready or mode not in modes]
        cases = [(n, mode) for n, mode in cases if n <= ready and mode in modes]
        for count, mode in fitting(cases, bench, seconds=seconds + 1):
            rates = workers.rates(count, mode, seconds)
            yield {
                "preset": PRESET,
                "mode": mode,
                "processes": count,
                "img_per_sec": sum(rates),
                "slowest": min(rates),
                "start_up_s": workers.start_up,
                "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
            }
    finally:
        workers.stop()


class Workers:
    """Processes that hold a trainer per mode and train for as long as they are told."""

    def __init__(self, count: int, bench: Bench) -> None:
        modes = "eager" if bench.dry else "eager,graphs"
        command = [sys.executable, "-m", "benchmarks.gpu.packing", bench.device.type, modes]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.bench, self.begun, self.start_up = bench, time.monotonic(), 0.0
        self.all = [subprocess.Popen(command, **pipes) for _ in range(count)]
        self.processes = self.all  # those that are ready

    def wait_until_ready(self, seconds: float) -> set[str]:
        """The modes that all processes can train in. Those that take longer to start are ended.

        RuntimeError if none has started.
        """
        end, ready, modes = time.monotonic() + seconds, [], set()
        waiting = {worker.stdout: worker for worker in self.processes}
        while waiting and (left := end - time.monotonic()) > 0:
            for stream in select.select(list(waiting), [], [], left)[0]:
                worker, line = waiting.pop(stream), stream.readline().split()
                if line[:1] == ["ready"]:
                    modes = modes & set(line[1:]) if ready else set(line[1:])
                    ready.append(worker)
        for worker in set(self.processes) - set(ready):
            worker.kill()
        if not ready:
            raise RuntimeError(f"none of {len(self.processes)} processes started within {seconds:.0f} s")
        self.processes, self.start_up = ready, time.monotonic() - self.begun
        return modes

    def rates(self, count: int, mode: str, seconds: float) -> list[float]:
        """Images per second of each of the first `count` processes, all training at the same time."""
        for worker in self.processes[:count]:
            worker.stdin.write(f"{mode} {seconds}\n")
            worker.stdin.flush()
        return [self._answer(i, seconds * 3 + 20) for i in range(count)]

    def stop(self) -> None:
        for worker in self.all:
            worker.kill()
            worker.wait()

    def _answer(self, i: int, timeout: float) -> float:
        stream = self.processes[i].stdout
        answered = select.select([stream], [], [], timeout)[0]
        line = stream.readline() if answered else ""
        if not line:
            raise RuntimeError(f"process {i} of {len(self.processes)} gave no answer")
        return float(line)


def work(device: str, modes: list[str]) -> None:
    """One process: warm up, say so; for a line `mode seconds` train that long and print images per second."""
    from pathlib import Path

    import torch

    from benchmarks.gpu.training import Case, build, warm_up

    torch.set_num_threads(1)
    bench = Bench(torch.device(device), Path("."))
    trainers = {}
    for mode in modes:
        try:
            trainer = build(Case(PRESET, 32, mode=mode), bench, narrow=bench.dry)
            warm_up(trainer)
            trainers[mode] = trainer
        except Exception:  # the other mode can still be measured
            traceback.print_exc()
    bench.synchronize()
    print("ready", *trainers, flush=True)
    for line in sys.stdin:
        mode, seconds = line.split()
        trainer, start, steps = trainers[mode], time.perf_counter(), 0
        while time.perf_counter() - start < float(seconds):
            for _ in range(4):
                trainer.step()
            bench.synchronize()
            steps += 4
        print(steps * trainer.cfg.batch / (time.perf_counter() - start), flush=True)


def table(rows: list[Result]) -> str:
    """By mode and number of processes."""
    alone = {row["mode"]: row["img_per_sec"] for row in rows if row["processes"] == 1}

    def gain(row: Result) -> str:
        return f"{row['img_per_sec'] / alone[row['mode']]:.2f}" if row["mode"] in alone else "–"

    return markdown(
        {
            "mode": lambda r: r["mode"],
            "processes": lambda r: r["processes"],
            "img/s, all": lambda r: f"{r['img_per_sec']:,.0f}",
            "slowest": lambda r: f"{r['slowest']:,.0f}",
            "times one": lambda r: (
                f"{r['img_per_sec'] / alone[r['mode']]:.2f}" if r["mode"] in alone else "–"
            ),
            "MPS": lambda r: "yes" if r["mps"] else "no",
        },
        sorted(rows, key=lambda r: (r["mode"], r["processes"])),
    )


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2].split(","))
