"""Training speed of the baseline networks, where the time goes, and how far the machine could go.

`python -m benchmarks training` prints a table and writes benchmarks/results/training.json. Lazy
regularisation is on, as in a real run: whole multiples of its intervals are timed. Peers are measured outside
this repository; their figures and how they were obtained stand in docs/training-speed.md.
"""

import dataclasses
import multiprocessing
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import fact_train.training.trainer
from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.memory import keep_freed_memory
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig, fields_of
from fact_train.settings.presets import PRESETS
from fact_train.training.precision import PRECISIONS
from fact_train.training.stats import peak_memory_gb
from fact_train.training.thread_pool import MicroBatchPool
from fact_train.training.trainer import Trainer

# StyleGAN2 at a fixed width, mapping depth 2, R1 every 16 steps and path length every 4.
BASE = TrainConfig(data="mnist", max_images=2000, map_depth=2, g_lr=0.0025, d_lr=0.0025)
WIDTH_64 = dataclasses.replace(BASE, channel_base=2048, channel_max=64, batch=32)
WIDTH_512 = dataclasses.replace(BASE, channel_base=16384, channel_max=512, batch=4)
PIXELS_128 = dataclasses.replace(BASE, resolution=128, channel_base=8192, channel_max=64, batch=8)


def without_encoder(cfg: TrainConfig) -> TrainConfig:
    """The same networks, losses and rates without StylEx: what an encoder and a classifier cost."""
    plain = {f.name: f.default for f in fields_of() if f.metadata["panel"] == "StylEx"}
    return dataclasses.replace(cfg, **plain)


LOSSES = ("generator_loss", "path_length_loss", "discriminator_loss", "penalty_loss", "reconstruction_loss")
CASES = {
    "32 px, 64 channels, batch 32": WIDTH_64,
    "32 px, 64 channels, batch 32, bf16": dataclasses.replace(WIDTH_64, precision="bf16"),
    "32 px, 512 channels, batch 4": WIDTH_512,
    "32 px, 512 channels, batch 4, bf16": dataclasses.replace(WIDTH_512, precision="bf16"),
    "128 px, 64 channels, batch 8": PIXELS_128,
    "128 px, 64 channels, batch 8, bf16": dataclasses.replace(PIXELS_128, precision="bf16"),
}
MNIST = {name: preset.config for name, preset in PRESETS.items() if name.startswith("mnist")}
MNIST["mnist, StyleGAN2 alone"] = without_encoder(MNIST["mnist"])


def run(
    *,
    seconds: float = 20.0,
    device: str = "auto",
    threads: int | None = None,
    configs: dict[str, TrainConfig] = CASES,
) -> dict[str, Any]:
    """Time every configuration for about `seconds`; returns the settings, the peak and {case: figures}."""
    dev, used = resolve_device(device), set_threads(threads)
    cases = {}
    for name, cfg in configs.items():  # a process each: peak memory is a process' own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            cases[name] = process.submit(measure, cfg, device, used, seconds=seconds).result()
    precisions = {cfg.precision for cfg in configs.values()}  # fp16 takes minutes on a CPU
    peaks = {name: peak_gflops(PRECISIONS[name], dev) for name in sorted(precisions)}
    return {"device": str(dev), "threads": used, "peak_gflops": peaks, "cases": cases}


def measure(cfg: TrainConfig, device_name: str, threads: int, *, seconds: float) -> dict[str, Any]:
    """Images per second over whole regulariser cycles, peak memory, GFLOP/s and the shares of a step."""
    set_threads(threads)
    keep_freed_memory()
    device = resolve_device(device_name)
    dataset = open_dataset(cfg.data, resolution=cfg.resolution, max_images=cfg.max_images)
    trainer = Trainer(cfg, dataset, device, threads=threads)
    cycle = max([*trainer.model.gan.lazy_intervals, 1])
    for _ in range(2):
        trainer.step(regularise=True)
    rates: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(cycle):
            trainer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(cycle * cfg.batch / (time.perf_counter() - before))
    peak = peak_memory_gb(device)  # before anything else is counted
    return {
        "img_per_sec": sorted(rates)[len(rates) // 2],
        "lowest": min(rates),
        "highest": max(rates),
        "cycles": len(rates),
        "peak_memory_gb": peak,
        "gflop_per_image": flops(trainer, cycle) / (cycle * cfg.batch) / 1e9,
        "precision": cfg.precision,
        "shares": shares(trainer, cycle),
    }


class _FlopCounter(TorchDispatchMode):
    """torch's own counts, without FlopCounterMode's module hooks, which autograd.grad refuses."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(trainer: Trainer, steps: int) -> int:
    """Floating-point operations of convolutions and products in `steps` steps (2 per multiply-add).

    Steps with the same regularisers cost the same, so one of each kind is counted.
    """
    trainer.pool = MicroBatchPool(1, threads=1)  # the counter sees its own thread only
    cfg, found, total = trainer.cfg, {}, 0
    for step in range(steps):
        kind = (step % cfg.pl_interval == 0, step % cfg.r1_interval == 0, step % trainer.model.period)
        if kind not in found:
            trainer.steps = step
            with _FlopCounter() as counter:
                trainer.step()
            found[kind] = counter.total
        total += found[kind]
    return total


def shares(trainer: Trainer, steps: int) -> dict[str, float]:
    """Share of the wall time of `steps` steps, one micro-batch at a time.

    `forward` includes the inner gradients of the regularisers; `other` is what no timer covers.
    """
    spent: dict[str, float] = defaultdict(float)

    def timed(name, function):
        def call(*args, **kwargs):
            before = time.perf_counter()
            result = function(*args, **kwargs)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            spent[name] += time.perf_counter() - before
            return result

        return call

    trainer.pool = MicroBatchPool(1, threads=torch.get_num_threads())
    original = fact_train.training.trainer.gradients
    fact_train.training.trainer.gradients = timed("backward", original)
    model = trainer.model
    for owner in (model, model.gan):  # a model's own generator loss stands before the GAN's
        for name in LOSSES:
            if hasattr(owner, name):
                setattr(owner, name, timed("forward", getattr(owner, name)))
    trainer.inputs = timed("data", trainer.inputs)
    trainer.average = timed("optimiser and averages", trainer.average)
    for optimiser in (model.gan.G_opt, model.gan.D_opt):
        optimiser.step = timed("optimiser and averages", optimiser.step)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    whole = time.perf_counter() - start
    fact_train.training.trainer.gradients = original
    spent["other"] = whole - sum(spent.values())
    return {name: value / whole for name, value in sorted(spent.items(), key=lambda item: -item[1])}


def peak_gflops(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of the best of a 2,048 x 2,048 matrix product and a 3x3 convolution of 256 channels."""
    a = torch.randn(2048, 2048, device=device).to(dtype)
    x = torch.randn(8, 256, 32, 32, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    product = _best_seconds(lambda: a @ a, device)
    convolution = _best_seconds(lambda: F.conv2d(x, w, padding=1), device)
    return max(2 * 2048**3 / product, 2 * 8 * 32 * 32 * 256 * 256 * 9 / convolution) / 1e9


def _best_seconds(function, device: torch.device, *, repeats: int = 8) -> float:
    best = float("inf")
    with torch.no_grad():
        for _ in range(repeats):
            before = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - before)
    return best


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| case | img/s, median (lowest - highest) | peak memory | GFLOP/s (share of the machine's best) | "
        "forward | backward | optimiser | data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, case in result["cases"].items():
        share = defaultdict(float, case["shares"])
        speed = case["img_per_sec"] * case["gflop_per_image"]
        best = result["peak_gflops"][case["precision"]]
        lines.append(
            f"| {name} | {case['img_per_sec']:.3g} ({case['lowest']:.3g} - {case['highest']:.3g}) | "
            f"{case['peak_memory_gb']:.2f} GiB | {speed:.0f} ({speed / best:.0%}) | {share['forward']:.0%} | "
            f"{share['backward']:.0%} | {share['optimiser and averages']:.0%} | {share['data']:.1%} |"
        )
    return "\n".join(lines)
