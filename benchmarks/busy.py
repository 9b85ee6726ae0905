"""Training speed while other programs use the cores, for settings of how idle threads wait.

`python -m benchmarks busy` times `mnist-stylegan2` beside 0, 1 and 2 busy processes: on one thread, and on
all cores with each setting of WAITING, and in one run per core. Everything is measured in turn, ROUNDS times.
A thread of OpenMP that waits for another spins first and sleeps later. Spinning keeps the core from the very
thread it waits for. A share is that of the better of one thread and the fair share of all threads.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

ROUNDS = 3
COMPETITORS = (0, 1, 2)
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # of libgomp, read once when it is loaded
WAITING = {
    "as torch comes": {},
    "10,000 spins": {"GOMP_SPINCOUNT": "10000"},
    "no spin": {"GOMP_SPINCOUNT": "0"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
LOOP = "while True: pass"
ONE = "one thread"


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Images per second, {case: {competitors: [rates]}}; `seconds` for a case in all."""
    cores = threads or len(os.sched_getaffinity(0))
    cases = {ONE: (1, 1, {}), f"{cores} runs of one thread": (cores, 1, {})}
    cases |= {f"{cores} threads, {name}": (1, cores, settings) for name, settings in WAITING.items()}
    rates: dict[str, dict[int, list[float]]] = {name: {n: [] for n in COMPETITORS} for name in cases}
    for _ in range(ROUNDS):
        for competitors in COMPETITORS:
            with ExitStack() as stack:
                for _ in range(competitors):
                    process = subprocess.Popen([sys.executable, "-c", LOOP])
                    stack.callback(process.wait)
                    stack.callback(process.kill)
                for name, case in cases.items():
                    rates[name][competitors].append(_measured(*case, seconds / ROUNDS))
    return {"threads": cores, "seconds": seconds, "cases": rates}


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table; the last column is the share of what is fairly ours."""
    cases, cores = result["cases"], result["threads"]
    middle = {
        name: {int(n): statistics.median(values) for n, values in by.items()} for name, by in cases.items()
    }
    quiet = max(by[0] for name, by in middle.items() if " threads, " in name)
    lines = [
        "| case | quiet, img/s | 1 busy process | 2 busy processes | of the fair share: 1 | 2 |",
        "|---|---|---|---|---|---|",
    ]
    for name, by in middle.items():
        fair = {n: max(middle[ONE][n], quiet * cores / (cores + n)) for n in (1, 2)}
        cells = [f"{by[n]:.0f} ({min(cases[name][n]):.0f} - {max(cases[name][n]):.0f})" for n in COMPETITORS]
        lines.append(f"| {name} | {' | '.join(cells)} | {by[1] / fair[1]:.2f} | {by[2] / fair[2]:.2f} |")
    return "\n".join(lines)


def _measured(runs: int, threads: int, settings: dict[str, str], seconds: float) -> float:
    """img/s of so many processes together; the settings are read when torch is loaded."""
    clean = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    command = [sys.executable, "-m", "benchmarks.busy", str(threads), str(seconds)]
    processes = [
        subprocess.Popen(command, env={**clean, **settings}, stdout=subprocess.PIPE, text=True)
        for _ in range(runs)
    ]
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def _worker(threads: int, seconds: float) -> None:
    from benchmarks.training import MNIST
    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.memory import keep_freed_memory
    from fact_train.data import open_dataset
    from fact_train.training.trainer import Trainer

    set_threads(threads)
    keep_freed_memory()
    cfg = MNIST["mnist-stylegan2"]
    trainer = Trainer(cfg, open_dataset(cfg.data, max_images=2000), resolve_device("cpu"), threads=threads)
    for _ in range(4):
        trainer.step()
    steps, start = 0, time.perf_counter()
    while steps % 16 or time.perf_counter() - start < seconds:
        trainer.step()
        steps += 1
    print(steps * cfg.batch / (time.perf_counter() - start))


if __name__ == "__main__":
    _worker(int(sys.argv[1]), float(sys.argv[2]))
