"""Training and the StyleGAN2-ADA reference, in turn in one process: `python -m benchmarks peer --peer DIR`.

DIR is a checkout of NVlabs/stylegan2-ada-pytorch. Both have the same widths, mapping depth 2, mini-batch
statistics of 4, style mixing 0.9, lazy R1 every 16 steps and path length every 4. A pair is 16 steps of each.
The reference has no bfloat16, so beside our bf16 it runs in fp32.

With ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 in the environment it takes the instructions of an older
processor, says so in the result, and writes peer-avx2.json.
"""

import dataclasses
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.pairs import measure, ratio
from benchmarks.training import CASES as ALL_CASES
from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.memory import keep_freed_memory
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training.trainer import Trainer

NARROW = {name: cfg for name, cfg in ALL_CASES.items() if cfg.channel_max == 64}
STEPS = 16  # of a pair: a whole cycle of the lazy regularisers
WARM_UP = 2


def run(
    *,
    peer: Path,
    seconds: float = 20.0,
    device: str = "auto",
    threads: int | None = None,
    only: str | None = None,
    configs: dict[str, TrainConfig] = NARROW,
) -> dict[str, Any]:
    """{case: img/s of both and their ratio}, at least three pairs each; `only` fp32, or bf16.

    128 px takes minutes, and bf16 without its instructions half an hour.
    """
    dev, used = resolve_device(device), set_threads(threads)
    cases = {}
    chosen = {name: cfg for name, cfg in configs.items() if only in (None, cfg.precision)}
    for name, cfg in chosen.items():  # a process each: memory that one case frees is no help to the next
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            folder = str(peer.resolve())
            cases[name] = process.submit(beside, cfg, device, used, folder, seconds=seconds).result()
    return {"device": str(dev), "threads": used, "instructions": instructions(), "cases": cases}


def beside(cfg: TrainConfig, device: str, threads: int, peer: str, *, seconds: float) -> dict[str, Any]:
    """Images per second of a configuration and of the reference with its sizes, and the ratio in pairs."""
    import setuptools  # noqa: F401  gives new Pythons the module distutils, which the reference imports

    sys.path.insert(0, peer)
    from benchmarks.reference import Reference

    dev = resolve_device(device)
    set_threads(threads)
    keep_freed_memory()
    dataset = open_dataset(cfg.data, resolution=cfg.resolution, max_images=cfg.max_images)
    ours = Trainer(cfg, dataset, dev, threads=threads)
    plain = dataclasses.replace(cfg, precision="fp32", resolution=dataset.size.width)
    theirs = Reference(plain, dev, channels=dataset.num_channels)
    for _ in range(WARM_UP):
        ours.step(regularise=True)
        theirs.step(regularise=True)

    def steps(one: Trainer | Reference) -> None:
        for _ in range(STEPS):
            one.step()

    pair = measure(lambda: steps(ours), lambda: steps(theirs), seconds=seconds, slow=float("inf"))
    images = STEPS * cfg.batch
    return {
        "ratio": pair["ratio"],
        "img_per_sec": sorted(images / t for t in pair["ours_seconds"]),
        "peer_img_per_sec": sorted(images / t for t in pair["peer_seconds"]),
    }


def instructions() -> str:
    """The vector instructions of torch and the limit that oneDNN was given."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "no limit")
    return f"torch {torch.backends.cpu.get_cpu_capability()}, oneDNN {limit}"


def result_name(result: dict[str, Any]) -> str:
    """The results of lowered instruction sets stand beside the others."""
    return "peer" if result["instructions"].endswith("no limit") else "peer-avx2"


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['threads']} threads, {result['instructions']}",
        "",
        "| case | reference, img/s | ours, img/s | ratio, median (min - max) | pairs |",
        "|---|---|---|---|---|",
    ]
    for name, case in result["cases"].items():
        both = (
            f"{rates[len(rates) // 2]:.3g} ({rates[0]:.3g} - {rates[-1]:.3g})"
            for rates in (case["peer_img_per_sec"], case["img_per_sec"])
        )
        lines.append(f"| {name} | {' | '.join(both)} | {ratio(case)} | {case['ratio']['pairs']} |")
    return "\n".join(lines)
