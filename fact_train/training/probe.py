"""Start-up probe: the costliest step is run once before training, so that a run does not die of memory later.

The probe also measures a step. The trainer's state is restored afterwards, bit for bit.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fact_metrics.base.errors import UserError
from fact_train.training.trainer import Trainer


@dataclass(frozen=True)
class Probe:
    """Seconds of one average step, and its images over all processes."""

    seconds_per_step: float
    batch: int

    @property
    def img_per_sec(self) -> float:
        """Images per second over all processes."""
        return self.batch / self.seconds_per_step

    def describe(self, *, images_left: int) -> str:
        """One line: speed, and how long the images that are left take."""
        seconds = self.seconds_per_step * max(images_left, 0) / self.batch
        return (
            f"probe: every regulariser fits; about {self.img_per_sec:.0f} img/s, "
            f"{images_left / 1000:g} kimg to go in about {seconds / 60:.1f} min"
        )


def probe(trainer: Trainer) -> Probe:
    """Run full and plain steps, restore the state, and estimate the mean step.

    UserError where memory does not suffice.
    """
    with rehearsal(trainer):
        seconds_per_step(trainer, regularise=True)
        plain = seconds_per_step(trainer, regularise=False)
        full = seconds_per_step(trainer, regularise=True)
    intervals = trainer.model.gan.lazy_intervals
    full_share = sum(1 / interval for interval in intervals) / max(len(intervals), 1)
    return Probe(seconds_per_step=plain + max(full - plain, 0.0) * full_share, batch=trainer.cfg.batch)


@contextmanager
def rehearsal(trainer: Trainer) -> Iterator[None]:
    """Steps taken inside leave no trace: the state is restored. UserError where memory does not suffice."""
    cfg = trainer.cfg
    state = copy.deepcopy(trainer.state_dict())
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(
            f"one step with every regulariser does not fit into memory at --batch {cfg.batch}; "
            f"halve --batch-gpu (now {trainer.share.size}), which accumulates gradients. "
            f"({str(error).splitlines()[0]})"
        ) from error
    trainer.load_state_dict(state)


def seconds_per_step(trainer: Trainer, *, regularise: bool) -> float:
    """Seconds of a step, the mean over every kind of step of the model."""
    steps = trainer.model.period
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(regularise=regularise)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return (time.perf_counter() - start) / steps
