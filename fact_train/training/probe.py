"""Start-up probe: the costliest step is taken once before training, so that a run never dies of memory later.

It also tells what a step costs. The trainer's state is put back afterwards, bit for bit.
"""

import copy
import time
from dataclasses import dataclass

import torch

from fact_metrics.base.errors import UserError
from fact_train.training.trainer import Trainer


@dataclass(frozen=True)
class Probe:
    """Seconds of one average step and the images it shows."""

    seconds_per_step: float
    batch: int

    def describe(self, *, images_left: int) -> str:
        seconds = self.seconds_per_step * max(images_left, 0) / self.batch
        return (
            f"probe: every regulariser fits; about {self.batch / self.seconds_per_step:.0f} img/s, "
            f"{images_left / 1000:g} kimg to go in about {seconds / 60:.1f} min"
        )


def probe(trainer: Trainer) -> Probe:
    """Run full and plain steps, restore the state, and estimate the mean step.

    UserError where memory does not suffice.
    """
    cfg = trainer.cfg
    saved = copy.deepcopy(trainer.state_dict())
    try:
        _timed(trainer, regularise=True)
        plain = _timed(trainer, regularise=False)
        full = _timed(trainer, regularise=True)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(
            f"one step with every regulariser does not fit into memory at --batch {cfg.batch}; "
            f"halve --batch-gpu (now {trainer.share.size}), which accumulates gradients. "
            f"({str(error).splitlines()[0]})"
        ) from error
    trainer.load_state_dict(saved)
    lazy = ((cfg.pl_interval, cfg.pl_weight), (cfg.r1_interval, trainer.r1_gamma))
    intervals = [interval for interval, weight in lazy if weight > 0]
    extra = sum(1 / i for i in intervals) / max(len(intervals), 1)
    return Probe(seconds_per_step=plain + max(full - plain, 0.0) * extra, batch=cfg.batch)


def _timed(trainer: Trainer, *, regularise: bool) -> float:
    """Seconds of a step, the mean over every kind of step there is."""
    start = time.perf_counter()
    for _ in range(trainer.period):
        trainer.step(regularise=regularise)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return (time.perf_counter() - start) / trainer.period
