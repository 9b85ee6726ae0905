"""Training speed of the baseline networks and where the time goes.

`python -m benchmarks training` prints a table and writes benchmarks/results/training.json. Lazy
regularisation is on, as in a real run: whole multiples of its intervals are timed. Peers are measured outside
this repository; their figures and how they were obtained stand in benchmarks/README.md.
"""

import multiprocessing
import platform
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fact_train.config import TrainConfig
from fact_train.data import open_dataset
from fact_train.loop import peak_memory_gb, resolve_device, set_threads
from fact_train.presets import get_preset
from fact_train.trainer import Trainer

# 64 feature maps at every resolution, 32 px, batch 32: the setting the reference was measured in.
WIDTH_64 = TrainConfig(
    data="mnist", map_depth=2, channel_base=2048, channel_max=64, batch=32, g_lr=0.0025, d_lr=0.0025
)

CASES = {
    "32 px, 64 channels, batch 32": WIDTH_64,
    "preset mnist-stylegan2": get_preset("mnist-stylegan2").config,
    "preset mnist": get_preset("mnist").config,
}

# Operators by what they do; the rest is "other".
KINDS = {
    "convolution forward": ("mkldnn_convolution", "cudnn_convolution", "aten::_convolution"),
    "convolution backward": ("convolution_backward",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "optimiser": ("_fused_adam", "Optimizer.step"),
    "random numbers": ("aten::normal_", "aten::random_", "aten::uniform_"),
}


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Time every case for about `seconds`; returns the machine, the settings and {case: figures}."""
    dev, used = resolve_device(device), set_threads(threads)
    cases = {}
    for name in CASES:  # a process each: peak memory is a process' own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            cases[name] = process.submit(measure, name, device, used, seconds=seconds).result()
    return {
        "machine": {"cpu": platform.machine(), "device": str(dev), "threads": used},
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cases": cases,
    }


def measure(case: str, device_name: str, threads: int, *, seconds: float) -> dict[str, Any]:
    """Images per second over whole regulariser cycles, peak memory, and the operator shares of a cycle."""
    set_threads(threads)
    cfg, device = CASES[case], resolve_device(device_name)
    trainer = Trainer(cfg, open_dataset(cfg.data), device)
    cycle = max([cfg.pl_interval] * (cfg.pl_weight > 0) + [cfg.r1_interval] * (cfg.r1_gamma > 0) + [1])
    for _ in range(3):
        trainer.step(regularise=True)
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(cycle):
            trainer.step()
            images += cfg.batch
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    elapsed = time.perf_counter() - start
    peak = peak_memory_gb(device)  # before the profiler takes its own
    return {
        "img_per_sec": images / elapsed,
        "images": images,
        "seconds": elapsed,
        "peak_memory_gb": peak,
        "shares": operator_shares(trainer, cycle),
    }


def operator_shares(trainer: Trainer, steps: int) -> dict[str, float]:
    """Share of operator self time by kind, over `steps` training steps."""
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            trainer.step()
    totals: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), None)
        if kind is None:
            kind = "elementwise and reductions" if event.key.startswith("aten::") else "other"
        totals[kind] += own
    whole = sum(totals.values())
    return {kind: value / whole for kind, value in sorted(totals.items(), key=lambda kv: -kv[1])}


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = ["| case | img/s | peak memory | convolutions | elementwise |", "|---|---|---|---|---|"]
    for name, case in result["cases"].items():
        shares = case["shares"]
        conv = sum(v for k, v in shares.items() if k.startswith("convolution"))
        lines.append(
            f"| {name} | {case['img_per_sec']:.0f} | {case['peak_memory_gb']:.2f} GiB | {conv:.0%} | "
            f"{shares.get('elementwise and reductions', 0):.0%} |"
        )
    return "\n".join(lines)
