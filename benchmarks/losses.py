"""What each loss and penalty costs in a step: `python -m benchmarks losses`.

Each case is the preset mnist-stylegan2, or mnist, with the changes named. A cost is the time of a step beside
that of the plain case, timed in turn on the same machine; lazy terms are spread over their intervals.
"""

import dataclasses
import math
import time
from typing import Any

import torch

from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.memory import keep_freed_memory
from fact_train.data import open_dataset
from fact_train.settings.presets import get_preset
from fact_train.training.trainer import Trainer

PLAIN = "the preset"
WARM_UP = 2  # steps before any is timed
# preset -> {case: changes}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "mnist-stylegan2": {
        PLAIN: {},
        "hinge": dict(loss="hinge"),
        "relativistic": dict(loss="relativistic"),
        "dual-contrastive": dict(loss="dual-contrastive"),
        "top-k 1/2": dict(top_k=0.5),
        "without R1": dict(r1_gamma=0.0, r1_gamma_final=None),
        "R1 with D": dict(r1_phase="d"),
        "R1 towards norm 1": dict(gp="one"),
        "R1 and R2": dict(r2_gamma=5.0),
        "R1 and R2, every step with D": dict(r2_gamma=5.0, r1_phase="d", r1_interval=1),
        "path length": dict(pl_weight=2.0),
    },
    "mnist": {
        PLAIN: {},
        "both branches": dict(branches="both", alternation="step"),
        "reconstruction every other turn": dict(rec_interval=2),
        "LPIPS": dict(w_lpips=0.1),
        "LPIPS of 2 images": dict(w_lpips=0.1, lpips_batch_shrink=8),
        "LPIPS every other time": dict(w_lpips=0.1, lpips_interval=2),
    },
}


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """{preset: {case: figures}}, each case timed for about `seconds`."""
    dev, used = resolve_device(device), set_threads(threads)
    keep_freed_memory()
    presets = {}
    for preset, cases in CASES.items():
        base = get_preset(preset).config
        trainers = {}
        for name, changes in cases.items():
            cfg = dataclasses.replace(base, max_images=2000, **changes)
            dataset = open_dataset(cfg.data, resolution=cfg.resolution, max_images=cfg.max_images)
            trainers[name] = Trainer(cfg, dataset, dev, threads=used)
        presets[preset] = measure(trainers, seconds=seconds)
    return {"device": str(dev), "threads": used, "presets": presets}


def measure(trainers: dict[str, Trainer], *, seconds: float) -> dict[str, dict[str, float]]:
    """Median seconds of a step of each, and its ratio to the first; rounds of all cases follow each other."""
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        for _ in range(WARM_UP):
            trainer.step(regularise=True)
    start = time.perf_counter()
    while not times[PLAIN] or time.perf_counter() - start < seconds * len(trainers):
        for name, trainer in trainers.items():
            times[name].append(_seconds_per_step(trainer))
    medians = {name: sorted(own)[len(own) // 2] for name, own in times.items()}
    return {
        name: {
            "milliseconds": 1e3 * median,
            "ratio": median / medians[PLAIN],
            "lowest": 1e3 * min(times[name]),
            "highest": 1e3 * max(times[name]),
            "cycles": len(times[name]),
        }
        for name, median in medians.items()
    }


def _seconds_per_step(trainer: Trainer) -> float:
    """Mean over one cycle of the lazy terms: the same steps of the cycle every time."""
    steps = cycle(trainer)
    before = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return (time.perf_counter() - before) / steps


def cycle(trainer: Trainer) -> int:
    """Steps after which every kind of step has come as often as it should."""
    turns = trainer.model.period * trainer.cfg.rec_interval * trainer.cfg.lpips_interval
    return math.lcm(turns, *trainer.model.gan.lazy_intervals)


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| preset | case | ms a step, median (lowest - highest) | of the preset's |",
        "|---|---|---|---|",
    ]
    for preset, cases in result["presets"].items():
        for name, case in cases.items():
            lines.append(
                f"| {preset} | {name} | {case['milliseconds']:.1f} ({case['lowest']:.1f} - "
                f"{case['highest']:.1f}) | {case['ratio']:.2f} |"
            )
    return "\n".join(lines)
