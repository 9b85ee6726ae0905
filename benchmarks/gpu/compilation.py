"""What torch.compile brings: the losses of G and D compiled, R1 and path length as they are.

torch.compile has no second derivatives, which R1 and path length need. To compile can take longer than the
part has, so every case runs in a process of its own.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu import training
from benchmarks.gpu.process import figures_of
from benchmarks.gpu.report import Bench, Result, fitting
from benchmarks.gpu.training import Case
from fact_train.training.trainer import Trainer

CASES = [Case("mnist-stylegan2", 32, mode="compile"), Case("auto", 256, "tf32", mode="compile")]


def measure(bench: Bench) -> Iterator[Result]:
    """A result per case. Part `training` has the same cases without compilation."""
    cases = CASES[:1] if bench.dry else CASES
    for case in fitting(cases, bench, seconds=0 if bench.dry else 20):
        found = figures_of("benchmarks.gpu.compilation", [bench.device.type, str(CASES.index(case))], bench)
        yield {**dataclasses.asdict(case), **found}


def compile_losses(trainer: Trainer, *, backend: str) -> None:
    """Compile the losses of G and D."""
    gan = trainer.model.gan
    for name in ("generator_loss", "discriminator_loss"):
        setattr(gan, name, torch.compile(getattr(gan, name), dynamic=False, backend=backend))


def work(device: str, index: int) -> None:
    """One case in this process; the last line of the output is its figures."""
    bench = Bench(torch.device(device), Path("."))
    trainer = training.build(CASES[index], bench, narrow=bench.dry)
    # A dry run traces as a real one does, and generates no code.
    compile_losses(trainer, backend="aot_eager" if bench.dry else "inductor")
    print(json.dumps(training.time_steps(trainer, bench, seconds=0.1 if bench.dry else 4.0)), flush=True)


table = training.table

if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
