"""What one more checkpoint costs `fact-eval all`: all its scoring against bare generation and detectors.

`python -m benchmarks checkpoints`. Untrained networks of the preset mnist-stylegan2, the board's metrics. The
first one also makes the real features; every further one is compared with a loop that only makes its
images and shows them to the detectors. Processor time says what the work is; wall time also what else ran.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.pairs import start
from fact_eval.features.store import FeatureCache
from fact_eval.images.open import OpenedImages
from fact_eval.images.sources import GeneratorSource
from fact_eval.jobs.plan import Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_eval.scoring.evaluation import Evaluation
from fact_eval.scoring.inputs import Inputs
from fact_leaderboard.columns import metrics_for
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.features import get_detector
from fact_metrics.registry import compute_metric, get_specs
from fact_train import run_folder
from fact_train.data import open_dataset
from fact_train.networks.build import build_networks
from fact_train.settings.presets import get_preset
from fact_train.snapshot import load_snapshot, save_snapshot

METRICS = tuple(metrics_for("mnist"))
BATCH = 64
PRESET = "mnist-stylegan2"


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, checkpoints: int = 5
) -> dict[str, Any]:
    """Wall and processor seconds of scoring each of the checkpoints, and of the bare loop for all but one."""
    keep_freed_memory()  # as the command does
    chosen, about, limits = start(device, threads)
    specs = tuple(spec for spec in get_specs(METRICS) if not spec.needs_encoder)
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as name, limits:
        root = Path(name)
        evaluation = Evaluation(device=str(chosen), batch=BATCH, cache=FeatureCache(root / "cache"))
        rows = []
        for seed in range(checkpoints):
            folder = untrained_run(root / f"seed{seed}", seed)
            (job,) = plan_run(read_run(folder), Request(specs, named=True))
            calls = [lambda job=job: evaluation.run([job]), lambda job=job: _bare(job, str(chosen))]
            if not seed:
                scored, bare = _clock(calls[0]), None
            elif seed % 2:
                scored, bare = map(_clock, calls)
            else:  # the other one first
                bare, scored = map(_clock, calls[::-1])
            rows.append({"scored": scored, "bare": bare})
        if evaluation.outcome.failures:
            raise RuntimeError(evaluation.outcome.problems())
    return {"machine": about, "metrics": [spec.name for spec in specs], "checkpoints": rows}


def table(result: dict[str, Any]) -> str:
    """Seconds per checkpoint and the ratio, as Markdown."""
    lines = [
        "| checkpoint | scoring, wall (CPU) s | bare, wall (CPU) s | scoring / bare, wall (CPU) |",
        "|---|---|---|---|",
    ]
    ratios = []
    for number, row in enumerate(result["checkpoints"], start=1):
        shown = [f"{row['scored'][0]:.1f} ({row['scored'][1]:.1f})", "", ""]
        if row["bare"]:
            shown[1] = f"{row['bare'][0]:.1f} ({row['bare'][1]:.1f})"
            wall, cpu = (a / b for a, b in zip(row["scored"], row["bare"], strict=True))
            shown[2] = f"{wall:.2f} ({cpu:.2f})"
            ratios.append((wall, cpu))
        lines.append(f"| {number} | {' | '.join(shown)} |")
    wall, cpu = (
        f"{median(each):.2f} ({min(each):.2f} - {max(each):.2f})" for each in zip(*ratios, strict=True)
    )
    lines.append(f"\nscoring / bare, median (lowest - highest): wall {wall}, CPU {cpu}")
    return "\n".join(lines)


def _bare(job, device: str) -> None:
    """Images of a job once, shown to every detector that its metrics need; path lengths and fused against
    unfused, which are nothing but generation and a detector; and nothing else."""
    source = GeneratorSource(load_snapshot(job.snapshot, device=device), seed=0, device=device)
    wanted: dict[str, int] = {}
    for need in (need for spec, _ in job.missing for need in spec.needs if need.side == "generated"):
        wanted[need.detector] = max(need.count, wanted.get(need.detector, 0))
    with torch.inference_mode():
        for first in range(0, max(wanted.values()), BATCH):
            images = source.images(range(first, min(first + BATCH, max(wanted.values()))))
            for name, count in wanted.items():
                if first < count:
                    get_detector(name, device)(images[: count - first]).cpu()
        inputs = Inputs(OpenedImages(source, {}), {}, None, seed=0, device=device)
        for spec, _ in job.missing:
            if spec.needs_generator:
                compute_metric(spec, inputs)


def untrained_run(folder: Path, seed: int) -> Path:
    """A new run folder whose snapshot holds the preset's networks as they are drawn."""
    cfg = get_preset(PRESET).config
    dataset = open_dataset(cfg.data)
    folder.mkdir()
    run_id = run_folder.prepare(
        folder, cfg, preset=PRESET, label=f"{PRESET}-{seed}", dataset=dataset.describe()
    )
    torch.manual_seed(seed)
    G, D = build_networks(cfg, dataset.describe())
    save_snapshot(
        folder / run_folder.snapshot_name(0),
        {"G_ema": G, "D": D},
        cfg=cfg,
        dataset=dataset.describe(),
        nimg=0,
        run_id=run_id,
    )
    return folder


def _clock(call: Callable[[], object]) -> tuple[float, float]:
    wall, times = time.perf_counter(), os.times()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    after = os.times()
    return time.perf_counter() - wall, after.user + after.system - times.user - times.system
