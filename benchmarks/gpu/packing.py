"""Aggregate images per second of several small runs that share one GPU, by their number.

Each run is a process of its own on one CPU thread, as `fact-train` is. All warm up, then all are timed over
the same seconds. Without CUDA's multi-process service (MPS) the GPU takes turns between processes; with the
service running, CUDA_MPS_PIPE_DIRECTORY is set and the result says so.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.gpu.report import Bench, Result, fitting, markdown

COUNTS = (1, 8, 16, 4, 2)
START_UP = 8.0  # seconds until all processes are ready


def measure(bench: Bench) -> Iterator[Result]:
    """A result per number of processes: the sum of their images per second."""
    seconds = 0.5 if bench.dry else 5.0
    counts = (1, 2) if bench.dry else COUNTS
    for count in fitting(counts, bench, seconds=0 if bench.dry else seconds + START_UP):
        rates = together(count, device=bench.device.type, seconds=seconds, dry=bench.dry)
        yield {
            "preset": "mnist-stylegan2",
            "processes": count,
            "img_per_sec": sum(rates),
            "slowest": min(rates),
            "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
        }


def together(count: int, *, device: str, seconds: float, dry: bool) -> list[float]:
    """Images per second of `count` processes that train at the same time. RuntimeError if one fails."""
    command = [sys.executable, "-m", "benchmarks.gpu.packing", device, str(seconds), str(int(dry))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    workers = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        for worker in workers:
            if worker.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a process of {count} did not start")
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [float(worker.communicate(timeout=seconds * 4 + 30)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def work(device: str, seconds: float, dry: bool) -> None:
    """One process: warm up, say so, wait for the word, train for `seconds`, print images per second."""
    from pathlib import Path

    import torch

    from benchmarks.gpu.training import Case, build

    torch.set_num_threads(1)
    bench = Bench(torch.device(device), Path("."))
    trainer = build(Case("mnist-stylegan2", 32), bench, narrow=dry)
    for regularise in (True, False, True):
        trainer.step(regularise=regularise)
    bench.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            trainer.step()
        bench.synchronize()
        steps += 4
    print(steps * trainer.cfg.batch / (time.perf_counter() - start), flush=True)


def table(rows: list[Result]) -> str:
    """By number of processes."""
    alone = next((row["img_per_sec"] for row in rows if row["processes"] == 1), None)
    return markdown(
        {
            "processes": lambda r: r["processes"],
            "img/s, all": lambda r: f"{r['img_per_sec']:,.0f}",
            "slowest": lambda r: f"{r['slowest']:,.0f}",
            "times one": lambda r: f"{r['img_per_sec'] / alone:.2f}" if alone else "–",
            "MPS": lambda r: "yes" if r["mps"] else "no",
        },
        sorted(rows, key=lambda r: r["processes"]),
    )


if __name__ == "__main__":
    work(sys.argv[1], float(sys.argv[2]), bool(int(sys.argv[3])))
