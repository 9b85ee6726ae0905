"""Images per second of whole training steps: by resolution, precision and way of launching kernels.

Whole cycles of the lazy regularisers are timed after warm-up, on random images of the right size. "graphs" is
--cuda-graphs, without style mixing and with constant gamma, which graphs need. "compile" sends the phases
without second derivatives through torch.compile, which cannot compile R1 and path length.
"""

import dataclasses
import gc
import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.gpu.report import Bench, Result, fitting, markdown
from fact_train.data import open_dataset
from fact_train.data.dataset import Dataset
from fact_train.data.processing import Processing
from fact_train.settings.config import TrainConfig
from fact_train.settings.presets import get_preset
from fact_train.training.trainer import Trainer

# Seconds per kimg on one A100, published in the README of NVlabs/stylegan2-ada-pytorch for its own
# configurations: other code, other torch, other batch. A landmark, not a peer in the same run.
A100 = {128: 6.79, 256: 12.53, 512: 41.06, 1024: 90.4}


@dataclasses.dataclass(frozen=True)
class Case:
    """A preset at a resolution, a precision, and how kernels are launched."""

    preset: str
    resolution: int
    precision: str = "fp32"
    mode: str = "eager"  # eager | graphs | compile
    batch: int | None = None  # None: the preset's

    def config(self, *, dry: bool) -> TrainConfig:
        """The configuration; in a dry run narrow and small."""
        preset = get_preset(self.preset)
        cfg = preset.at(self.resolution) if preset.at_resolution else preset.config
        fields = dict(data="mnist" if preset.config.data == "mnist" else "images", precision=self.precision)
        if self.preset not in ("mnist", "mnist-stylegan2"):
            fields["resolution"] = self.resolution
        if self.mode == "graphs":
            fields |= dict(cuda_graphs=True, style_mixing_prob=0.0, r1_gamma_final=None)
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
    Case("auto", 256),
    Case("auto", 256, "tf32"),
    Case("auto", 256, "fp16"),
    Case("auto", 256, "bf16"),
    Case("auto", 256, "fp16", "graphs"),
    Case("auto", 1024, "tf32"),
    Case("auto", 1024, "fp16"),
    Case("auto", 128, "tf32"),
    Case("auto", 128, "fp16"),
    Case("auto", 128, "fp16", "graphs"),
    Case("auto", 32, "tf32"),
    Case("paper256", 256, "fp16", batch=32),
    Case("auto", 512, "fp16"),
    Case("auto", 256, "tf32", "compile"),
]
DRY_CASES = [Case("mnist-stylegan2", 32), Case("mnist", 32), Case("auto", 32), Case("auto", 64)]


def measure(bench: Bench) -> Iterator[Result]:
    """A result per case, the most important cases first; a case that fails is a result too."""
    cases = DRY_CASES if bench.dry else CASES
    seconds = 0.3 if bench.dry else 5.0
    for case in fitting(cases, bench, seconds=seconds):
        settings = {**dataclasses.asdict(case)}
        try:
            yield {**settings, **time_case(case, bench, seconds=seconds)}
        except Exception as error:  # out of memory, or torch cannot capture or compile it
            yield {**settings, "error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def time_case(case: Case, bench: Bench, *, seconds: float) -> Result:
    """Median images per second over whole cycles, and peak memory."""
    trainer = build(case, bench, narrow=bench.dry)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    cycle = max([*trainer.model.gan.lazy_intervals, trainer.model.period, 1])
    advance = stepper(trainer, case.mode)
    started = time.perf_counter()
    for _ in range(3):  # graphs are captured at the third call of a phase
        trainer.step(regularise=True)
    for _ in range(2):
        advance()
    bench.synchronize()
    warm_up = time.perf_counter() - started
    rates = []
    start = time.perf_counter()
    while not rates or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(cycle):
            advance()
        bench.synchronize()
        rates.append(cycle * trainer.cfg.batch / (time.perf_counter() - before))
    rate = sorted(rates)[len(rates) // 2]
    return {
        "batch": trainer.cfg.batch,
        "img_per_sec": rate,
        "lowest": min(rates),
        "highest": max(rates),
        "cycles": len(rates),
        "sec_per_kimg": 1000 / rate,
        "peak_memory_gb": torch.cuda.max_memory_allocated(bench.device) / 2**30 if not bench.dry else None,
        "warm_up_s": warm_up,
    }


def build(case: Case, bench: Bench, *, narrow: bool) -> Trainer:
    """A trainer on MNIST or on random images; `narrow` for dry runs."""
    cfg = case.config(dry=narrow)
    if cfg.data == "mnist":
        return Trainer(
            cfg, open_dataset("mnist", max_images=512), bench.device, threads=torch.get_num_threads()
        )
    resolution = cfg.resolution or 32
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, resolution, resolution), np.uint8)
    dataset = Dataset(
        name=cfg.data,
        split="train",
        images=pixels,
        labels=None,
        num_classes=0,
        processing=Processing(resolution=resolution, channels=3),
    )
    return Trainer(cfg, dataset, bench.device, threads=torch.get_num_threads())


def stepper(trainer: Trainer, mode: str):
    """`advance()`: one training step."""
    if mode == "compile":
        compile_phases(trainer)

    def advance() -> None:
        trainer.step()

    return advance


def compile_phases(trainer: Trainer) -> None:
    """torch.compile for the losses of G and D; R1 and path length need second derivatives and stay eager."""
    gan = trainer.model.gan
    for name in ("generator_loss", "discriminator_loss"):
        setattr(gan, name, torch.compile(getattr(gan, name), dynamic=False))


def table(rows: list[Result]) -> str:
    """The cases beside the published A100 figures of StyleGAN2-ADA's own code."""

    def speed(row: Result, name: str, form: str) -> str:
        return f"{row[name]:{form}}" if row.get(name) is not None else "–"

    return markdown(
        {
            "preset": lambda r: r["preset"],
            "px": lambda r: r["resolution"],
            "precision": lambda r: r["precision"],
            "mode": lambda r: r["mode"],
            "batch": lambda r: r.get("batch") or "–",
            "img/s": lambda r: speed(r, "img_per_sec", ",.0f") if "error" not in r else r["error"],
            "s/kimg": lambda r: speed(r, "sec_per_kimg", ".2f"),
            "A100, StyleGAN2-ADA": lambda r: A100.get(r["resolution"], "–"),
            "peak memory, GiB": lambda r: speed(r, "peak_memory_gb", ".1f"),
            "warm-up, s": lambda r: speed(r, "warm_up_s", ".1f"),
        },
        rows,
    )
