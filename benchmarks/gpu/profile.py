"""Where a training step waits for the host: synchronisations, kernels, and the GPU's busy share.

Goal: no synchronisation inside a step. Those of a tick (statistics, pictures) are not part of a step.
"""

import time
import warnings
from collections import Counter
from collections.abc import Iterator

import torch

from benchmarks.gpu.report import Bench, Result, fitting, markdown
from benchmarks.gpu.training import Case, build, warm_up

CASES = [
    Case("auto", 256, "tf32", "graphs"),
    Case("mnist-stylegan2", 32),
    Case("mnist-stylegan2", 32, mode="graphs"),
    Case("auto", 256, "fp16", "graphs"),
    Case("mnist", 32),
    Case("auto", 256, "tf32"),
]
DRY_CASES = [Case("mnist-stylegan2", 32)]
STEPS = 16  # a cycle of the regularisers


def measure(bench: Bench) -> Iterator[Result]:
    """A result per configuration."""
    for case in fitting(DRY_CASES if bench.dry else CASES, bench, seconds=0 if bench.dry else 6):
        trainer = build(case, bench, narrow=bench.dry)
        warm_up(trainer)
        bench.synchronize()
        places = synchronisations(trainer) if not bench.dry else Counter()
        start = time.perf_counter()
        for _ in range(STEPS):
            trainer.step()
        bench.synchronize()
        wall = time.perf_counter() - start
        kernels, busy, top = kernel_times(trainer, bench)
        yield {
            "preset": case.preset,
            "px": case.resolution,
            "precision": case.precision,
            "mode": case.mode,
            "ms_per_step": wall / STEPS * 1e3,
            "kernels_per_step": kernels / STEPS,
            "gpu_busy_share": busy / wall if not bench.dry else None,
            "syncs_per_step": sum(places.values()) / STEPS,
            "sync_places": dict(places.most_common(8)),
            "top_kernels": top,
        }


def synchronisations(trainer) -> Counter:
    """Line of code -> synchronisations in STEPS steps."""
    found = Counter()

    def note(message, category, filename, lineno, file=None, line=None):
        if "called a synchronizing" in str(message):
            found[f"{filename.split('/')[-1]}:{lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(STEPS):
                trainer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def kernel_times(trainer, bench: Bench) -> tuple[int, float, list]:
    """Kernels of STEPS steps, their seconds on the device, and the ten that take longest."""
    kind = torch.profiler.ProfilerActivity.CPU if bench.dry else torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[kind]) as profile:
        for _ in range(STEPS):
            trainer.step()
        bench.synchronize()
    events = profile.key_averages()
    if not bench.dry:  # without the launches, which are events of the host
        events = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    spent = {e.key: (e.self_cpu_time_total if bench.dry else e.self_device_time_total) / 1e6 for e in events}
    longest = sorted(spent.items(), key=lambda item: -item[1])[:10]
    top = [[name[:100], round(seconds * 1e3 / STEPS, 3)] for name, seconds in longest]
    return sum(e.count for e in events), sum(spent.values()), top


def table(rows: list[Result]) -> str:
    """A row per configuration; the lines that synchronise below."""
    text = markdown(
        {
            "preset": lambda r: r["preset"],
            "px": lambda r: r["px"],
            "precision": lambda r: r["precision"],
            "mode": lambda r: r["mode"],
            "ms a step": lambda r: f"{r['ms_per_step']:.1f}",
            "kernels a step": lambda r: f"{r['kernels_per_step']:,.0f}",
            "GPU busy": lambda r: "–" if r["gpu_busy_share"] is None else f"{r['gpu_busy_share']:.0%}",
            "synchronisations a step": lambda r: f"{r['syncs_per_step']:.2f}",
        },
        rows,
    )
    for row in rows:
        name = f"{row['preset']}, {row['px']} px, {row['precision']}, {row['mode']}"
        for place, count in row["sync_places"].items():
            text += f"\n\n{name}: {place} synchronises {count / STEPS:.2f} times a step"
        longest = ", ".join(f"`{kernel}` {ms:.2f}" for kernel, ms in row["top_kernels"][:5])
        text += f"\n\n{name}, kernels that take longest, ms a step: {longest}"
    return text
