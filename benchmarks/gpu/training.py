"""Images per second of whole training steps: by resolution, precision and way of launching kernels.

Whole cycles of the lazy regularisers are timed after warm-up, on random images of the right size, without
augmentation. "graphs" is --cuda-graphs, without style mixing, which graphs cannot hold.
fp16 holds all feature maps in half precision; the reference does so in its four highest resolutions only.
"""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.gpu.report import Bench, Result, fitting, markdown
from fact_train.data import open_dataset
from fact_train.data.dataset import Dataset
from fact_train.data.processing import Processing
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import get_preset
from fact_train.training.trainer import Trainer

# Seconds per kimg on one A100 and the batch: docs/configs.md of NVlabs/stylegan3, "Old StyleGAN2-ADA
# configurations", default configuration, one GPU. Its code and torch, with ADA and fp16 in the four highest
# resolutions: a landmark, not a peer in the same run.
A100 = {128: (6.79, 32), 256: (12.53, 16), 512: (41.06, 8), 1024: (90.39, 4)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A preset at a resolution, a precision, and how kernels are launched."""

    preset: str
    resolution: int
    precision: str = "fp32"
    mode: str = "eager"  # eager | graphs | compile | reference
    layout: str = "channels_last"  # the networks' own, or contiguous
    autotune: bool = False  # cudnn.benchmark: time every algorithm once and keep the fastest
    batch: int | None = None  # None: the preset's

    def __str__(self) -> str:
        own = [self.layout] * (self.layout != "channels_last") + ["autotuned"] * self.autotune
        return " ".join([self.preset, f"{self.resolution} px", self.precision, self.mode, *own])

    def config(self, *, dry: bool) -> TrainConfig:
        """The configuration; in a dry run narrow and small."""
        preset = get_preset(self.preset)
        cfg = preset.at(self.resolution) if preset.at_resolution else preset.config
        fields = dict(data="mnist" if preset.config.data == "mnist" else "images", precision=self.precision)
        fields |= dict(fp16_layers=0, conv_clamp=None, augment="none")  # the case names what it has
        if preset.config.data != "mnist":
            fields["resolution"] = self.resolution
        if self.mode == "graphs":
            fields |= dict(cuda_graphs=True, style_mixing_prob=0.0)
        if self.precision == "fp16":
            fields["conv_clamp"] = 256.0
        if self.batch is not None:
            fields["batch"] = self.batch
        if dry:
            fields |= dict(channel_base=256, channel_max=16, batch=4, mbstd_group_size=4, batch_gpu=None)
        return dataclasses.replace(cfg, **fields)


CASES = [
    Case("mnist-stylegan2", 32),
    Case("mnist-stylegan2", 32, mode="graphs"),
    Case("mnist", 32),
    Case("mnist", 32, mode="graphs"),
    Case("auto", 256, "tf32"),
    Case("auto", 256, "tf32", "graphs"),
    Case("auto", 256, "fp16", "graphs"),
    Case("auto", 256, "bf16", "graphs"),
    Case("auto", 256, "fp16", "graphs", autotune=True),
    Case("auto", 256, "tf32", "graphs", autotune=True),
    Case("auto", 256, "fp16"),
    Case("auto", 1024, "fp16"),
    Case("auto", 128, "fp16", "graphs"),
    Case("auto", 256, "fp16", "graphs", layout="contiguous"),
    Case("auto", 1024, "tf32"),
    Case("auto", 256, "fp32"),
    Case("auto", 128, "tf32"),
    Case("auto", 32, "tf32", "graphs"),
    Case("paper256", 256, "fp16", "graphs"),
    Case("auto", 512, "fp16", "graphs"),
    Case("auto", 256, "bf16"),
    Case("auto", 1024, "fp16", "graphs"),
    Case("paper1024", 1024, "fp16", batch=8),
]
DRY_CASES = [
    Case("mnist", 32),
    Case("auto", 16, "bf16", layout="contiguous", autotune=True),
]


def measure(bench: Bench) -> Iterator[Result]:
    """A result per case, the most important cases first; a case that fails is a result too."""
    cases = DRY_CASES if bench.dry else CASES
    seconds = 0.1 if bench.dry else 2.5
    for case in fitting(cases, bench, seconds=2 * seconds):
        yield {**dataclasses.asdict(case), **figures(case, bench, seconds=seconds)}


def figures(case: Case, bench: Bench, *, seconds: float) -> Result:
    """The figures of a case, or why there are none."""
    tuned = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = case.autotune
    try:
        return time_steps(build(case, bench, narrow=bench.dry), bench, seconds=seconds)
    except Exception as error:  # out of memory, or torch cannot capture or compile it
        lines = str(error).splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0]}"[:200]}
    finally:
        torch.backends.cudnn.benchmark = tuned
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def time_steps(trainer: Trainer, bench: Bench, *, seconds: float) -> Result:
    """Median images per second over whole cycles, and peak memory."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    started = time.perf_counter()
    warm_up(trainer)
    bench.synchronize()
    warm_up_s = time.perf_counter() - started
    cycle = 4 if bench.dry else max([*trainer.model.gan.lazy_intervals, trainer.model.period, 1])
    rates = rates_of_cycles(trainer.step, trainer.cfg.batch, cycle, bench, seconds=seconds)
    return summary(rates, trainer.cfg.batch, bench, warm_up_s=warm_up_s)


def rates_of_cycles(
    step: Callable[[], None], batch: int, cycle: int, bench: Bench, *, seconds: float
) -> list[float]:
    """Images per second of every cycle of steps, for about `seconds` and at least one cycle."""
    rates: list[float] = []
    start = time.perf_counter()
    while not rates or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(cycle):
            step()
        bench.synchronize()
        rates.append(cycle * batch / (time.perf_counter() - before))
    return rates


def summary(rates: list[float], batch: int, bench: Bench, *, warm_up_s: float) -> Result:
    """The figures of a table row."""
    rate = sorted(rates)[len(rates) // 2]
    return {
        "batch": batch,
        "img_per_sec": rate,
        "lowest": min(rates),
        "highest": max(rates),
        "cycles": len(rates),
        "sec_per_kimg": 1000 / rate,
        "peak_memory_gb": torch.cuda.max_memory_allocated(bench.device) / 2**30 if not bench.dry else None,
        "warm_up_s": warm_up_s,
    }


def warm_up(trainer: Trainer) -> None:
    """Steps with all regularisers. Graphs are captured at the third call of a phase.

    Models that take turns have a graph per turn, so every turn gets its calls.
    """
    start = trainer.steps
    for _ in range(3 * trainer.model.period):
        trainer.step(regularise=True)
    trainer.steps = start


def build(case: Case, bench: Bench, *, narrow: bool) -> Trainer:
    """A trainer on MNIST or on random images; `narrow` for dry runs."""
    cfg = case.config(dry=narrow)
    trainer = Trainer(cfg, _dataset(cfg), bench.device, threads=torch.get_num_threads())
    if case.layout == "contiguous":
        for net in trainer.model.networks.values():
            net.to(memory_format=torch.contiguous_format)
    return trainer


def _dataset(cfg: TrainConfig) -> Dataset:
    if cfg.data == "mnist":
        return open_dataset("mnist", max_images=512)
    resolution = cfg.resolution or 32
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, resolution, resolution), np.uint8)
    return Dataset(
        name=cfg.data,
        split="train",
        images=pixels,
        labels=None,
        num_classes=0,
        processing=Processing(resolution=resolution, channels=3),
    )


def _number(name: str, form: str) -> Callable[[Result], str]:
    return lambda row: f"{row[name]:{form}}" if row.get(name) is not None else "–"


def _speed(row: Result) -> str:
    if "error" in row:
        return row["error"].replace("|", "\\|")
    return f"{row['img_per_sec']:,.0f} ({row['lowest']:,.0f} - {row['highest']:,.0f})"


def _published(row: Result) -> str:
    seconds, batch = A100.get(row["resolution"], (None, None))
    return f"{seconds:.2f}" if row["preset"] == "auto" and row.get("batch") == batch else "–"


COLUMNS: dict[str, Callable[[Result], object]] = {
    "preset": lambda r: r["preset"],
    "px": lambda r: r["resolution"],
    "precision": lambda r: r["precision"],
    "mode": lambda r: r["mode"],
    "layout": lambda r: r["layout"],
    "autotuned": lambda r: "yes" if r["autotune"] else "no",
    "batch": lambda r: r.get("batch") or "–",
    "img/s (lowest - highest)": _speed,
    "s/kimg": _number("sec_per_kimg", ".2f"),
    "s/kimg of StyleGAN2-ADA, A100": _published,
    "peak memory, GiB": _number("peak_memory_gb", ".1f"),
    "warm-up, s": _number("warm_up_s", ".1f"),
}


def table(rows: list[Result]) -> str:
    """The cases beside the published A100 figures of StyleGAN2-ADA's own code, at the same batch."""
    return markdown(COLUMNS, rows)
