"""Speed of training and scoring while other programs use the cores.

`python -m benchmarks busy` times both beside 0, 1 and 2 busy processes: on one thread, on all cores, and
on the number that each chooses for itself. All is measured in turn, ROUNDS times, in one process. A
share is that of the better of one thread and the fair share of all threads, which is
`cores / (cores + processes)` of their quiet speed. It takes about five minutes with the default --seconds.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkpoints import untrained_run
from benchmarks.training import MNIST
from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.devices import available_threads
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.threads import Choice, choose, seconds_of_convolutions
from fact_metrics.features import get_detector
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.snapshot import load_snapshot
from fact_train.training.threads import choose_threads
from fact_train.training.trainer import Trainer

ROUNDS = 3
COMPETITORS = (0, 1, 2)
CHOSEN = "chosen"
DETECTORS = ("efficientnet_lite0", "stlpips_alex", "digits")  # of the board's FID, precision and recall
BATCH = 32  # of scoring
LOOP = "print(flush=True)\nwhile True: pass"
Step = Callable[[], int]  # returns how many images it took


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Images per second, {task: {case: {competitors: [rates]}}}; `seconds` for a case of training in all.

    Scoring takes a third of that. `choices` has what was chosen and how long the choice took, in order.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"--device {device}: this benchmark is about CPU threads")
    keep_freed_memory()
    cores = threads or available_threads()
    trainer = _trainer()
    cases = {"one thread": 1, f"{cores} threads": cores, CHOSEN: None}
    choosers = {
        "training": lambda: choose_threads(trainer, most=cores),
        "scoring": lambda: choose(cores, seconds_of_convolutions),
    }
    steps = {"training": lambda: _train(trainer), "scoring": _scorer()}
    spans = {"training": seconds / ROUNDS, "scoring": seconds / ROUNDS / 3}
    rates = {task: {name: {n: [] for n in COMPETITORS} for name in cases} for task in steps}
    choices: dict[str, dict[int, list[dict[str, float]]]] = {
        task: {n: [] for n in COMPETITORS} for task in steps
    }
    for _ in range(ROUNDS):
        for competitors in COMPETITORS:
            with _busy(competitors):
                for task, step in steps.items():
                    for name, number in cases.items():
                        if number is None:
                            number, took = _chosen(choosers[task])
                            choices[task][competitors].append({"threads": number, "seconds": took})
                        trainer.use_threads(number)
                        rates[task][name][competitors].append(_rate(step, spans[task]))
    return {"threads": cores, "seconds": seconds, "tasks": rates, "choices": choices}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown; the last columns are shares of what is fairly ours."""
    cores, levels = result["threads"], [str(n) for n in COMPETITORS]
    lines = [
        "| img/s | quiet | 1 busy process | 2 busy processes | share, quiet | 1 | 2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, cases in result["tasks"].items():
        rates = {name: {str(n): values for n, values in by.items()} for name, by in cases.items()}
        middle = {name: {n: statistics.median(v) for n, v in by.items()} for name, by in rates.items()}
        one, every = middle["one thread"], middle[f"{cores} threads"]
        fair = {n: max(one[n], every["0"] * cores / (cores + int(n))) for n in levels}
        for name, by in middle.items():
            cells = [f"{by[n]:.0f} ({min(rates[name][n]):.0f} - {max(rates[name][n]):.0f})" for n in levels]
            shares = [by["0"] / max(one["0"], every["0"]), *(by[n] / fair[n] for n in levels[1:])]
            lines.append(
                f"| {task}, {name} | {' | '.join(cells)} | {' | '.join(f'{s:.2f}' for s in shares)} |"
            )
    for task, by_level in result["choices"].items():
        levels = {str(n): found for n, found in by_level.items()}
        chosen = "; ".join(f"{n} busy: {', '.join(str(c['threads']) for c in levels[n])}" for n in levels)
        took = [c["seconds"] for found in levels.values() for c in found]
        lines += ["", f"Threads chosen, {task}: {chosen}. A choice took {min(took):.1f} - {max(took):.1f} s."]
    return "\n".join(lines)


def _trainer() -> Trainer:
    cfg = MNIST["mnist-stylegan2"]
    return Trainer(cfg, open_dataset(cfg.data, max_images=2000), torch.device("cpu"))


def _train(trainer: Trainer) -> int:
    trainer.step()
    return trainer.cfg.batch


def _scorer() -> Step:
    """Generates a batch and shows it to the detectors, as scoring does."""
    detectors = [get_detector(name, "cpu") for name in DETECTORS]
    with tempfile.TemporaryDirectory() as folder:
        (snapshot,) = run_folder.list_snapshots(untrained_run(Path(folder) / "run", 0))
        source = GeneratorSource(load_snapshot(snapshot, device="cpu"), seed=0, device="cpu")

    def step() -> int:
        with torch.inference_mode():
            images = source.images(range(BATCH))
            for detector in detectors:
                detector(images)
        return BATCH

    return step


def _chosen(choose_now: Callable[[], Choice]) -> tuple[int, float]:
    """The number of threads, and how many seconds the choice took."""
    start = time.perf_counter()
    choice = choose_now()
    return choice.threads, time.perf_counter() - start


def _rate(step: Step, seconds: float) -> float:
    """Images per second of steps, after one that warms up."""
    step()
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += step()
    return images / (time.perf_counter() - start)


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """So many processes that compute without end, from the moment they have started."""
    others = []
    try:
        for _ in range(processes):
            others.append(subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE))
        for other in others:
            other.stdout.readline()
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()
