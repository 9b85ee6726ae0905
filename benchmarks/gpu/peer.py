"""The reference networks and losses, from a checkout of NVlabs/stylegan2-ada-pytorch: `--peer DIR`.

With cudnn.benchmark on, as its train.py sets it. Its CUDA kernels are compiled at the first step, which needs
nvcc and ninja. Without them it falls back to its slow operations, and the result says so.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu import training
from benchmarks.gpu.process import figures_of
from benchmarks.gpu.report import Bench, Result, Skipped, fitting, markdown
from benchmarks.gpu.training import Case
from benchmarks.reference import Reference

CASES = [
    Case("auto", 256, "fp16", "reference", autotune=True),
    Case("auto", 256, "tf32", "reference", autotune=True),
    Case("auto", 128, "fp16", "reference", autotune=True),
    Case("auto", 1024, "fp16", "reference", autotune=True),
]
DRY_CASES = [Case("auto", 32, "fp32", "reference")]


def measure(bench: Bench) -> Iterator[Result]:
    """A result per case; its kernels are compiled in the first one."""
    if bench.peer is None:
        raise Skipped("no --peer DIR")
    for i, case in enumerate(fitting(_cases(bench), bench, seconds=0 if bench.dry else 10)):
        arguments = [bench.device.type, str(bench.peer.resolve()), str(i)]
        yield {**dataclasses.asdict(case), **figures_of("benchmarks.gpu.peer", arguments, bench)}


def _cases(bench: Bench) -> list[Case]:
    return DRY_CASES if bench.dry else CASES


def work(device_name: str, folder: str, index: int) -> None:
    """One case in this process; the last line of the output is its figures."""
    import setuptools  # noqa: F401  gives new Pythons the module distutils, which the reference imports

    sys.path.insert(0, folder)
    bench = Bench(torch.device(device_name), Path("."))
    case = _cases(bench)[index]
    cuda = not bench.dry
    tf32 = cuda and case.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = case.autotune
    cfg = case.config(dry=bench.dry)
    reference = Reference(cfg, bench.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(3):
        reference.step(regularise=True)
    bench.synchronize()
    warmed = time.perf_counter()
    reference.steps = 0
    cycle = 4 if bench.dry else cfg.r1_interval
    rates = training.rates_of_cycles(
        reference.step, cfg.batch, cycle, bench, seconds=0.1 if bench.dry else 2.5
    )
    found = training.summary(rates, cfg.batch, bench, warm_up_s=warmed - started)
    print(json.dumps({**found, "own_kernels": _own_kernels() if cuda else False}), flush=True)


def _own_kernels() -> bool:
    from torch_utils.ops import bias_act, upfirdn2d

    return bool(bias_act._init() and upfirdn2d._init())


def table(rows: list[Result]) -> str:
    """Beside the rows of part `training` with the same preset, resolution and precision."""
    kernels = {
        "its own kernels": lambda r: "–" if "error" in r else "yes" if r["own_kernels"] else "no, slow ones"
    }
    return markdown(training.COLUMNS | kernels, rows)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
